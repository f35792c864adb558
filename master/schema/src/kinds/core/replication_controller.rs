//! `v1` ReplicationController.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Dependents, FieldLabel, Hooks, Kind, Names, Part, Subresource};
use crate::kinds::apps::shared;
use crate::pod::{validate, warnings as pod_warnings};
use crate::table;
use crate::value::{Fields, object_in, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.ReplicationController",
    short_names: &["rc"],
    categories: &["all"],
    subresources: &[Subresource::SCALE, Subresource::status("", "v1", "ReplicationController")],
    generation: true,
    fields: &[FieldLabel { absent: "0", ..FieldLabel::text("status.replicas", "/status/replicas") }],
    dependents: Dependents::Orphaned,
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, validate_update, warnings: pod_warnings::named_maker, ..Hooks::PLAIN },
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "ReplicationController",
    list: "ReplicationControllerList",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::integer("Desired", "Replicas asked for"),
    Column::integer("Current", "Replicas there are"),
    Column::integer("Ready", "Replicas that are ready"),
    Column::AGE,
    Column::wide("Containers", "Names of the template's containers"),
    Column::wide("Images", "Images of the template's containers"),
    Column::wide("Selector", "Labels of the pods"),
];

const COUNTS: [&str; 5] =
    ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];

/// Selector and labels follow the template where they are not said.
fn default(object: &mut Value) {
    let Value::Object(controller) = object else { return };
    let labels = controller.at("spec").at("template").at("metadata").at("labels").clone();
    let spec = object_in(controller, "spec");
    set_if_unset(spec, "replicas", 1);
    if labels.is_object() && spec.entries("selector").next().is_none() {
        spec.insert("selector".into(), labels.clone());
    }
    let meta = object_in(controller, "metadata");
    if labels.is_object() && meta.entries("labels").next().is_none() {
        meta.insert("labels".into(), labels);
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    shared::replicas_row(object, now, table::labels(object.at("spec").at("selector")))
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let (spec, template) = (object.at("spec"), object.at("spec").at("template"));
    shared::not_negative(spec, "minReadySeconds", &path, errors);
    if spec.entries("selector").next().is_none() {
        errors.required(&path.child("selector"), "");
    }
    if !spec.has("replicas") {
        errors.required(&path.child("replicas"), "");
    }
    shared::not_negative(spec, "replicas", &path, errors);
    let path = path.child("template");
    if template.is_null() {
        return errors.required(&path, "");
    }
    let labels = template.at("metadata").at("labels");
    if !spec.entries("selector").all(|(name, value)| labels.at(name) == value) {
        let path = path.child("metadata");
        errors.invalid(&path.child("labels"), labels.clone(), "`selector` does not match template `labels`");
    }
    validate::template(template, &path, errors);
    shared::always_restarts(template, "ReplicationController", &path, errors);
}

fn validate_update(part: Part, object: &Value, _old: &Value, errors: &mut Errors) {
    if part == Part::Status {
        return shared::status_counts(object.at("status"), &COUNTS, "status.readyReplicas", errors);
    }
    validate(object, errors);
}
