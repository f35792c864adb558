//! `apps/v1` ReplicaSet.

use jiff::Timestamp;
use serde_json::Value;

use super::shared;
use crate::errors::{Errors, Path};
use crate::kind::{Column, FieldLabel, Hooks, Kind, Names, Part, Subresource};
use crate::pod::warnings as pod_warnings;
use crate::table;
use crate::value::{Fields, object_in, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.apps.v1.ReplicaSet",
    short_names: &["rs"],
    categories: &["all"],
    subresources: &[Subresource::SCALE, Subresource::status("apps", "v1", "ReplicaSet")],
    generation: true,
    fields: &[FieldLabel { absent: "0", ..FieldLabel::text("status.replicas", "/status/replicas") }],
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, validate_update, warnings: pod_warnings::named_maker, ..Hooks::PLAIN },
    ..Kind::namespaced("apps", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "ReplicaSet", list: "ReplicaSetList", plural: "replicasets", singular: "replicaset" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::integer("Desired", "Replicas asked for"),
    Column::integer("Current", "Replicas there are"),
    Column::integer("Ready", "Replicas that are ready"),
    Column::AGE,
    Column::wide("Containers", "Names of the template's containers"),
    Column::wide("Images", "Images of the template's containers"),
    Column::wide("Selector", "Label selector of the pods"),
];

fn default(object: &mut Value) {
    if let Value::Object(object) = object {
        set_if_unset(object_in(object, "spec"), "replicas", 1);
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    shared::replicas_row(object, now, table::selector(object.at("spec").at("selector")))
}

const COUNTS: [&str; 5] =
    ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = object.at("spec");
    for field in ["replicas", "minReadySeconds"] {
        shared::not_negative(spec, field, &path, errors);
    }
    shared::selector_and_template(spec, "deployment", &path, errors);
}

fn validate_update(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    if part == Part::Status {
        return shared::status_counts(object.at("status"), &COUNTS, "status.readyReplicas", errors);
    }
    validate(object, errors);
    shared::selector_unchanged(object, old, errors);
}
