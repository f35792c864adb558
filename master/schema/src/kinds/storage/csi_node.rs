//! `storage.k8s.io/v1` CSINode.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part};
use crate::names::{dns_subdomain, qualified_name};
use crate::pod::handlers::not_negative;
use crate::value::{Fields, put};
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.storage.v1.CSINode",
    returns_deleted_object: true,
    columns: &[Column::NAME, Column::integer("Drivers", "How many drivers run on the node"), Column::AGE],
    hooks: Hooks { row, validate, validate_update, ..Hooks::PLAIN },
    ..Kind::cluster("storage.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names { kind: "CSINode", list: "CSINodeList", plural: "csinodes", singular: "csinode" };

const LONGEST_NODE_ID: usize = 192;
const LONGEST_DRIVER: usize = 63;

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![table::name(object), object.at("spec").list("drivers").len().into(), table::age(object, now)]
}

/// Upstream's `ValidateCSIDriverName`.
pub(crate) fn driver_name(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
    }
    if name.len() > LONGEST_DRIVER {
        errors.too_long(path, LONGEST_DRIVER);
    }
    dns_subdomain(&name.to_lowercase()).iter().for_each(|text| errors.invalid(path, name, text));
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let path = path.child("drivers");
    let mut names = Vec::new();
    for (index, driver) in object.at("spec").list("drivers").iter().enumerate() {
        let path = path.index(index);
        let (name, id) = (driver.text("name"), driver.text("nodeID"));
        driver_name(name, &path.child("name"), errors);
        if id.is_empty() {
            errors.required(&path.child("nodeID"), id);
        }
        if id.len() > LONGEST_NODE_ID {
            errors.invalid(&path.child("nodeID"), id, &format!("must be {LONGEST_NODE_ID} characters or less"));
        }
        not_negative(driver.at("allocatable"), "count", &path.child("allocatable"), errors);
        if names.contains(&name) {
            errors.duplicate(&path.child("name"), name);
        }
        names.push(name);
        topology_keys(driver.list("topologyKeys"), &path, errors);
    }
}

fn topology_keys(keys: &[Value], path: &Path, errors: &mut Errors) {
    let mut seen = Vec::new();
    for key in keys.iter().filter_map(Value::as_str) {
        if key.is_empty() {
            errors.required(path, key);
        }
        if seen.contains(&key) {
            errors.duplicate(path, key);
        }
        seen.push(key);
        qualified_name(key).iter().for_each(|text| errors.invalid(path, key, text));
    }
}

/// What a driver said of itself stays, but for how many volumes it takes.
fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    validate(object, errors);
    let path = Path::root("spec");
    for before in old.at("spec").list("drivers") {
        let same_name = |driver: &&Value| driver.text("name") == before.text("name");
        for driver in object.at("spec").list("drivers").iter().filter(same_name) {
            let [driver, before] = [driver, before].map(|driver| {
                let mut driver = driver.clone();
                put(&mut driver, "allocatable", Value::Null);
                driver
            });
            meta::immutable(&driver, &before, &path.child("drivers"), errors);
        }
    }
}
