//! `policy/v1` PodDisruptionBudget.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Subresource};
use crate::kinds::apps::shared;
use crate::meta;
use crate::table;
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.policy.v1.PodDisruptionBudget",
    short_names: &["pdb"],
    subresources: &[Subresource::status("policy", "v1", "PodDisruptionBudget")],
    generation: true,
    unconditional_update: false,
    columns: COLUMNS,
    hooks: Hooks { row, validate, revalidate: true, ..Hooks::PLAIN },
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

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = object.at("spec");
    if spec.has("minAvailable") && spec.has("maxUnavailable") {
        errors.invalid(&path, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
    }
    for field in ["minAvailable", "maxUnavailable"] {
        if spec.has(field) {
            shared::int_or_percent(spec.at(field), &path.child(field), errors);
            shared::at_most_all(spec.at(field), &path.child(field), errors);
        }
    }
    meta::label_selector(spec.at("selector"), &path.child("selector"), errors);
    let policy = spec.at("unhealthyPodEvictionPolicy").as_str();
    if let Some(policy) = policy.filter(|p| !matches!(*p, "AlwaysAllow" | "IfHealthyBudget")) {
        let supported = ["AlwaysAllow", "IfHealthyBudget"];
        errors.not_supported(&path.child("unhealthyPodEvictionPolicy"), policy, &supported);
    }
}
