//! `flowcontrol.apiserver.k8s.io/v1` PriorityLevelConfiguration: kept and validated, as FlowSchemas are.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Subresource};
use crate::table;
use crate::value::{Fields, Object, object_in};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
    subresources: &[Subresource::status("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration")],
    generation: true,
    unconditional_update: false,
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, revalidate: true, ..Hooks::PLAIN },
    ..Kind::cluster("flowcontrol.apiserver.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "PriorityLevelConfiguration",
    list: "PriorityLevelConfigurationList",
    plural: "prioritylevelconfigurations",
    singular: "prioritylevelconfiguration",
};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Type", "Whether requests of this level are limited"),
    Column::text("NominalConcurrencyShares", "Its share of what may run at once"),
    Column::text("Queues", "How many queues it has"),
    Column::text("HandSize", "How many queues a flow chooses from"),
    Column::text("QueueLengthLimit", "How many requests may wait in a queue"),
    Column::AGE,
];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    let limited = if spec.text("type") == "Exempt" { spec.at("exempt") } else { spec.at("limited") };
    let queuing = limited.at("limitResponse").at("queuing");
    let number = |holder: &Value, field: &str| -> Value {
        holder.int(field).map_or_else(|| "<none>".into(), |number| number.to_string().into())
    };
    vec![
        table::name(object),
        spec.at("type").clone(),
        number(limited, "nominalConcurrencyShares"),
        number(queuing, "queues"),
        number(queuing, "handSize"),
        number(queuing, "queueLengthLimit"),
        table::age(object, now),
    ]
}

fn number(holder: &mut Object, field: &str, otherwise: i64) {
    if !holder.has(field) {
        holder.insert(field.into(), otherwise.into());
    }
}

fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    let spec = object_in(object, "spec");
    if spec.text("type") == "Exempt" {
        let exempt = object_in(spec, "exempt");
        number(exempt, "nominalConcurrencyShares", 0);
        number(exempt, "lendablePercent", 0);
    }
    let Some(Value::Object(limited)) = spec.get_mut("limited") else { return };
    number(limited, "nominalConcurrencyShares", 30);
    number(limited, "lendablePercent", 0);
    if let Some(Value::Object(queuing)) = limited.get_mut("limitResponse").and_then(|r| r.get_mut("queuing")) {
        for (field, otherwise) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
            if queuing.int(field).unwrap_or(0) == 0 {
                queuing.insert(field.into(), otherwise.into());
            }
        }
    }
}

fn validate(object: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::root("spec"), object.at("spec"));
    match spec.text("type") {
        "Exempt" if spec.has("limited") => {
            let detail = "must be nil if the type is not Limited";
            errors.forbidden(&path.child("limited"), detail);
        }
        "Exempt" => {}
        "Limited" if spec.has("exempt") => {
            errors.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
        }
        "Limited" if !spec.has("limited") => {
            errors.required(&path.child("limited"), "must not be empty when type is Limited");
        }
        "Limited" => limited(spec.at("limited"), &path.child("limited"), errors),
        other => errors.not_supported(&path.child("type"), other, &["Exempt", "Limited"]),
    }
}

fn limited(limited: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(shares) = limited.int("nominalConcurrencyShares").filter(|shares| *shares < 0) {
        let detail = "must be a non-negative integer";
        errors.invalid(&path.child("nominalConcurrencyShares"), shares, detail);
    }
    if let Some(percent) = limited.int("lendablePercent").filter(|percent| !(0..=100).contains(percent)) {
        errors.invalid(&path.child("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
    let (response, path) = (limited.at("limitResponse"), path.child("limitResponse"));
    match response.text("type") {
        "Reject" if response.has("queuing") => {
            errors.forbidden(&path.child("queuing"), "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if !response.has("queuing") => {
            let detail = "must not be empty if limited.limitResponse.type is Limited";
            errors.required(&path.child("queuing"), detail);
        }
        "Queue" => queuing(response.at("queuing"), &path.child("queuing"), errors),
        other => errors.not_supported(&path.child("type"), other, &["Queue", "Reject"]),
    }
}

fn queuing(queuing: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["queueLengthLimit", "queues", "handSize"] {
        if let Some(number) = queuing.int(field).filter(|number| *number <= 0) {
            errors.invalid(&path.child(field), number, "must be positive");
        }
    }
    let (queues, hand) = (queuing.int("queues").unwrap_or(0), queuing.int("handSize").unwrap_or(0));
    if hand > queues {
        let detail = format!("should not be greater than queues ({queues})");
        errors.invalid(&path.child("handSize"), hand, &detail);
    }
}
