//! `policy/v1` PodDisruptionBudget.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, Hooks, Kind, Names, Subresource};
use crate::table;
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.policy.v1.PodDisruptionBudget",
    short_names: &["pdb"],
    subresources: &[Subresource {
        name: "status",
        group: "policy",
        version: "v1",
        kind: "PodDisruptionBudget",
        verbs: &["get", "patch", "update"],
    }],
    generation: true,
    unconditional_update: false,
    columns: COLUMNS,
    hooks: Hooks { row, ..Hooks::PLAIN },
    ..Kind::namespaced("policy", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "PodDisruptionBudget",
    list: "PodDisruptionBudgetList",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Min Available", "Pods that must stay available"),
    Column::text("Max Unavailable", "Pods that may be away"),
    Column::integer("Allowed Disruptions", "Pods that may be evicted now"),
    Column::AGE,
];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let bound = |field| match object.at("spec").at(field) {
        Value::String(text) => text.clone().into(),
        Value::Number(number) => number.to_string().into(),
        _ => Value::from("N/A"),
    };
    vec![
        table::name(object),
        bound("minAvailable"),
        bound("maxUnavailable"),
        table::count(object.at("status"), "disruptionsAllowed"),
        table::age(object, now),
    ]
}
