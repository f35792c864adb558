//! `v1` Secret.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, FieldLabel, Hooks, Kind, Names};
use crate::table;
use crate::value::{Fields, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Secret",
    fields: &[FieldLabel::text("type", "/type")],
    columns: COLUMNS,
    hooks: Hooks { default, row, ..Hooks::PLAIN },
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Secret", list: "SecretList", plural: "secrets", singular: "secret" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Type", "What the secret is for"),
    Column { kind: "string", ..Column::integer("Data", "Number of keys") },
    Column::AGE,
];

fn default(object: &mut Value) {
    if let Value::Object(object) = object {
        set_if_unset(object, "type", "Opaque");
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let keys = object.entries("data").count();
    vec![table::name(object), object.text("type").into(), keys.into(), table::age(object, now)]
}
