//! `scheduling.k8s.io/v1` PriorityClass.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part};
use crate::table;
use crate::value::{Fields, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.scheduling.v1.PriorityClass",
    short_names: &["pc"],
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, validate_update, ..Hooks::PLAIN },
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

/// What users may set; above are the two classes of the system.
const HIGHEST: i64 = 1_000_000_000;
const SYSTEM: [(&str, i64); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

fn validate(object: &Value, errors: &mut Errors) {
    let name = object.at("metadata").text("name");
    let value = object.int("value").unwrap_or(0);
    if name.starts_with("system-") {
        if let Some(why) = not_of_the_system(name, value, object.flag("globalDefault")) {
            let reserved = "priority class names with 'system-' prefix are reserved for system use only. error: ";
            errors.forbidden(&Path::root("metadata").child("name"), &format!("{reserved}{why}"));
        }
    } else if value > HIGHEST {
        let detail = format!("maximum allowed value of a user defined priority is {HIGHEST}");
        errors.forbidden(&Path::root("value"), &detail);
    }
    let policy = object.text("preemptionPolicy");
    if !matches!(policy, "" | "PreemptLowerPriority" | "Never") {
        errors.not_supported(&Path::root("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    }
}

/// Upstream's `IsKnownSystemPriorityClass`.
fn not_of_the_system(name: &str, value: i64, is_global: bool) -> Option<String> {
    match SYSTEM.iter().find(|(system, _)| *system == name) {
        None => Some(format!("{name} is not a known system priority class")),
        Some((_, wanted)) if *wanted != value => Some(format!("value of {name} PriorityClass must be {wanted}")),
        Some(_) if is_global => Some(format!("globalDefault of {name} PriorityClass must be false")),
        Some(_) => None,
    }
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    if object.int("value").unwrap_or(0) != old.int("value").unwrap_or(0) {
        errors.forbidden(&Path::root("value"), "may not be changed in an update.");
    }
    if object.text("preemptionPolicy") != old.text("preemptionPolicy") {
        let detail = "field is immutable";
        errors.invalid(&Path::root("preemptionPolicy"), object.at("preemptionPolicy").clone(), detail);
    }
}
