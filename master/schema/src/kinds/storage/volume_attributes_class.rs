//! `storage.k8s.io/v1` VolumeAttributesClass.

use jiff::Timestamp;
use serde_json::Value;

use super::csi_node::driver_name;
use super::storage_class::parameters;
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part};
use crate::value::Fields;
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.storage.v1.VolumeAttributesClass",
    short_names: &["vac"],
    returns_deleted_object: true,
    columns: &[Column::NAME, Column::text("DriverName", "The driver that the class is for"), Column::AGE],
    hooks: Hooks { row, validate, validate_update, ..Hooks::PLAIN },
    ..Kind::cluster("storage.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "VolumeAttributesClass",
    list: "VolumeAttributesClassList",
    plural: "volumeattributesclasses",
    singular: "volumeattributesclass",
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![table::name(object), object.text("driverName").into(), table::age(object, now)]
}

fn validate(object: &Value, errors: &mut Errors) {
    driver_name(object.text("driverName"), &Path::root("driverName"), errors);
    let path = Path::root("parameters");
    parameters(object.at("parameters"), &path, errors);
    if object.entries("parameters").next().is_none() {
        errors.required(&path, "must contain at least one key/value pair");
    }
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    validate(object, errors);
    for field in ["driverName", "parameters"] {
        meta::immutable(object.at(field), old.at(field), &Path::root(field), errors);
    }
}
