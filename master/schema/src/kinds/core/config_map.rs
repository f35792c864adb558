//! `v1` ConfigMap.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part};
use crate::names::config_key;
use crate::table;
use crate::value::{Fields, same};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.ConfigMap",
    short_names: &["cm"],
    columns: COLUMNS,
    hooks: Hooks { row, validate, validate_update, ..Hooks::PLAIN },
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "ConfigMap", list: "ConfigMapList", plural: "configmaps", singular: "configmap" };

const COLUMNS: &[Column] =
    &[Column::NAME, Column { kind: "string", ..Column::integer("Data", "Number of keys") }, Column::AGE];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let keys = object.entries("data").count() + object.entries("binaryData").count();
    vec![table::name(object), keys.into(), table::age(object, now)]
}

/// What one ConfigMap or Secret may hold (`MaxSecretSize`).
pub(super) const MOST: usize = 1024 * 1024;

fn validate(object: &Value, errors: &mut Errors) {
    let mut size = 0;
    for field in ["data", "binaryData"] {
        let path = Path::root(field);
        for (key, value) in object.entries(field) {
            config_key(key).iter().for_each(|text| errors.invalid(&path.key(key), key.as_str(), text));
            if field == "data" && object.at("binaryData").has(key) {
                errors.invalid(&path.key(key), key.as_str(), "duplicate of key present in binaryData");
            }
            let text = value.as_str().unwrap_or_default();
            size += if field == "data" { text.len() } else { decoded_len(text) };
        }
    }
    if size > MOST {
        errors.too_long(&Path::root(""), MOST);
    }
}

/// How many bytes valid base64 stands for.
pub(super) fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    frozen(object, old, &["data", "binaryData"], errors);
    validate(object, errors);
}

/// With `immutable` set, neither it nor the data change again.
pub(super) fn frozen(object: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    if !old.flag("immutable") {
        return;
    }
    let detail = "field is immutable when `immutable` is set";
    if !object.flag("immutable") {
        errors.forbidden(&Path::root("immutable"), detail);
    }
    for field in fields {
        if !same(object.at(field), old.at(field)) {
            errors.forbidden(&Path::root(field), detail);
        }
    }
}
