//! `storage.k8s.io/v1` CSIStorageCapacity.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part};
use crate::names::dns_subdomain;
use crate::pod::node_labels;
use crate::value::Fields;
use crate::warnings::Warnings;
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.storage.v1.CSIStorageCapacity",
    unconditional_update: false,
    columns: &[
        Column::NAME,
        Column::text("StorageClassName", "The class that there is room for"),
        Column::text("Capacity", "How much room there is"),
    ],
    hooks: Hooks { row, validate, validate_update, warnings, ..Hooks::PLAIN },
    ..Kind::namespaced("storage.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "CSIStorageCapacity",
    list: "CSIStorageCapacityList",
    plural: "csistoragecapacities",
    singular: "csistoragecapacity",
};

fn row(object: &Value, _: Timestamp) -> Vec<Value> {
    let capacity = table::or(object.text("capacity"), "<unset>");
    vec![table::name(object), object.text("storageClassName").into(), capacity]
}

fn validate(object: &Value, errors: &mut Errors) {
    meta::label_selector(object.at("nodeTopology"), &Path::root("nodeTopology"), errors);
    let (path, class) = (Path::root("storageClassName"), object.text("storageClassName"));
    if class.is_empty() {
        errors.required(&path, "");
    } else {
        dns_subdomain(class).iter().for_each(|text| errors.invalid(&path, class, text));
    }
    for field in ["capacity", "maximumVolumeSize"] {
        if object.text(field).starts_with('-') {
            errors.invalid(&Path::root(field), object.text(field), "must be greater than or equal to 0");
        }
    }
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    validate(object, errors);
    for field in ["nodeTopology", "storageClassName"] {
        meta::immutable(object.at(field), old.at(field), &Path::root(field), errors);
    }
}

fn warnings(_part: Part, object: &Value, _old: Option<&Value>, warnings: &mut Warnings) {
    node_labels::selector(object.at("nodeTopology"), &Path::root("nodeTopology"), warnings);
}
