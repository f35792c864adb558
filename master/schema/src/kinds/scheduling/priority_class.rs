//! `scheduling.k8s.io/v1` PriorityClass.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, Hooks, Kind, Names};
use crate::table;
use crate::value::{Fields, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.scheduling.v1.PriorityClass",
    short_names: &["pc"],
    columns: COLUMNS,
    hooks: Hooks { default, row, ..Hooks::PLAIN },
    ..Kind::cluster("scheduling.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "PriorityClass", list: "PriorityClassList", plural: "priorityclasses", singular: "priorityclass" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::integer("Value", "The priority"),
    Column { kind: "boolean", ..Column::text("Global-Default", "Whether pods without a class get this one") },
    Column::AGE,
    Column::text("PreemptionPolicy", "Whether pods of this class preempt others"),
];

fn default(object: &mut Value) {
    if let Value::Object(object) = object {
        set_if_unset(object, "preemptionPolicy", "PreemptLowerPriority");
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        table::name(object),
        table::count(object, "value"),
        object.flag("globalDefault").into(),
        table::age(object, now),
        object.text("preemptionPolicy").into(),
    ]
}
