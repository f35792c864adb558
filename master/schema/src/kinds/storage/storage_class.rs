//! `storage.k8s.io/v1` StorageClass.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part};
use crate::names::qualified_name;
use crate::pod::node_labels;
use crate::value::{Fields, set_if_unset};
use crate::warnings::Warnings;
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.storage.v1.StorageClass",
    short_names: &["sc"],
    returns_deleted_object: true,
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, validate_update, warnings, ..Hooks::PLAIN },
    ..Kind::cluster("storage.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "StorageClass", list: "StorageClassList", plural: "storageclasses", singular: "storageclass" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Provisioner", "Who makes volumes of the class"),
    Column::text("ReclaimPolicy", "What becomes of a volume whose claim is gone"),
    Column::text("VolumeBindingMode", "When claims are bound"),
    Column::text("AllowVolumeExpansion", "Whether claims may grow"),
    Column::AGE,
];

/// The class of claims that name none carries one of these, with the value `true`.
const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// How many parameters there may be, and how long they may be together.
const MOST_PARAMETERS: usize = 512;
const PARAMETERS: usize = 256 * 1024;
const MODES: &[&str] = &["Immediate", "WaitForFirstConsumer"];
const RECLAIM: &[&str] = &["Delete", "Retain"];

fn default(object: &mut Value) {
    if let Value::Object(class) = object {
        set_if_unset(class, "reclaimPolicy", "Delete");
        set_if_unset(class, "volumeBindingMode", "Immediate");
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let annotations = object.at("metadata").at("annotations");
    let mut name = object.at("metadata").text("name").to_owned();
    if DEFAULT_CLASS.iter().any(|annotation| annotations.text(annotation) == "true") {
        name += " (default)";
    }
    vec![
        name.into(),
        object.text("provisioner").into(),
        table::or(object.text("reclaimPolicy"), "Delete"),
        table::or(object.text("volumeBindingMode"), "Immediate"),
        object.flag("allowVolumeExpansion").into(),
        table::age(object, now),
    ]
}

fn validate(object: &Value, errors: &mut Errors) {
    provisioner(object.text("provisioner"), &Path::root("provisioner"), errors);
    parameters(object.at("parameters"), &Path::root("parameters"), errors);
    let policy = object.text("reclaimPolicy");
    if !policy.is_empty() && !RECLAIM.contains(&policy) {
        errors.not_supported(&Path::root("reclaimPolicy"), policy, RECLAIM);
    }
    match object.at("volumeBindingMode").as_str() {
        None => errors.required(&Path::root("volumeBindingMode"), ""),
        Some(mode) if !MODES.contains(&mode) => errors.not_supported(&Path::root("volumeBindingMode"), mode, MODES),
        Some(_) => {}
    }
    topologies(object, errors);
}

/// Upstream's `validateProvisioner`.
fn provisioner(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, name);
    }
    qualified_name(&name.to_lowercase()).iter().for_each(|text| errors.invalid(path, name, text));
}

/// What is told to whoever makes volumes.
pub(super) fn parameters(parameters: &Value, path: &Path, errors: &mut Errors) {
    let Some(parameters) = parameters.as_object() else { return };
    if parameters.len() > MOST_PARAMETERS {
        return errors.too_long(path, MOST_PARAMETERS);
    }
    let mut size = 0;
    for (name, value) in parameters {
        if name.is_empty() {
            errors.invalid(path, name.as_str(), "field can not be empty.");
        }
        size += name.len() + value.as_str().map_or(0, str::len);
    }
    if size > PARAMETERS {
        errors.too_long(path, PARAMETERS);
    }
}

fn topologies(object: &Value, errors: &mut Errors) {
    let path = Path::root("allowedTopologies");
    for (index, term) in object.list("allowedTopologies").iter().enumerate() {
        let path = path.index(index);
        let path = path.child("matchLabelExpressions");
        let mut keys = Vec::new();
        for (index, requirement) in term.list("matchLabelExpressions").iter().enumerate() {
            let path = path.index(index);
            let key = requirement.text("key");
            meta::label_name(key, &path.child("key"), errors);
            if keys.contains(&key) {
                errors.duplicate(&path.child("key"), key);
            }
            keys.push(key);
            let values = requirement.list("values");
            if values.is_empty() {
                errors.required(&path.child("values"), "");
            }
            for (index, value) in
                values.iter().enumerate().filter(|(i, value)| values.iter().take(*i).any(|v| v == *value))
            {
                errors.duplicate(&path.child("values").index(index), value.clone());
            }
        }
    }
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    validate(object, errors);
    for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        meta::immutable(object.at(field), old.at(field), &Path::root(field), errors);
    }
}

fn warnings(_part: Part, object: &Value, _old: Option<&Value>, warnings: &mut Warnings) {
    let topologies = Path::root("allowedTopologies");
    for (index, topology) in object.list("allowedTopologies").iter().enumerate() {
        let path = topologies.index(index);
        let at = path.child("matchLabelExpressions");
        for (index, expression) in topology.list("matchLabelExpressions").iter().enumerate() {
            if let Some(text) = node_labels::deprecated(expression.text("key")) {
                warnings.of(&at.index(index).child("key"), text);
            }
        }
    }
}
