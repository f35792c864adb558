//! `apps/v1` DaemonSet.

use jiff::Timestamp;
use serde_json::Value;

use super::shared;
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part, Subresource};
use crate::meta;
use crate::pod::{validate as pod, warnings as pod_warnings};
use crate::table::{self, count};
use crate::value::{Fields, object_in, same, set_if_unset};
use crate::warnings::Warnings;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.apps.v1.DaemonSet",
    short_names: &["ds"],
    categories: &["all"],
    subresources: &[Subresource::status("apps", "v1", "DaemonSet")],
    generation: true,
    columns: COLUMNS,
    hooks: Hooks { default, row, prepare_create, prepare_update, validate, validate_update, warnings, ..Hooks::PLAIN },
    ..Kind::namespaced("apps", "v1", NAMES)
};

const NAMES: Names = Names { kind: "DaemonSet", list: "DaemonSetList", plural: "daemonsets", singular: "daemonset" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::integer("Desired", "Nodes that should run the pod"),
    Column::integer("Current", "Nodes that run the pod and should"),
    Column::integer("Ready", "Nodes whose pod is ready"),
    Column::integer("Up-to-date", "Nodes whose pod is of the latest template"),
    Column::integer("Available", "Nodes whose pod has been ready for minReadySeconds"),
    Column::text("Node Selector", "Labels of the nodes that run the pod"),
    Column::AGE,
    Column::wide("Containers", "Names of the template's containers"),
    Column::wide("Images", "Images of the template's containers"),
    Column::wide("Selector", "Label selector of the pods"),
];

fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    let spec = object_in(object, "spec");
    set_if_unset(spec, "revisionHistoryLimit", 10);
    let strategy = object_in(spec, "updateStrategy");
    set_if_unset(strategy, "type", "RollingUpdate");
    if strategy.text("type") == "RollingUpdate" {
        let rolling = object_in(strategy, "rollingUpdate");
        set_if_unset(rolling, "maxUnavailable", 1);
        set_if_unset(rolling, "maxSurge", 0);
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let (template, status) = (object.at("spec").at("template"), object.at("status"));
    let [names, images] = table::containers(template);
    vec![
        table::name(object),
        count(status, "desiredNumberScheduled"),
        count(status, "currentNumberScheduled"),
        count(status, "numberReady"),
        count(status, "updatedNumberScheduled"),
        count(status, "numberAvailable"),
        table::labels(template.at("spec").at("nodeSelector")),
        table::age(object, now),
        names,
        images,
        table::selector(object.at("spec").at("selector")),
    ]
}

/// Counts the templates a DaemonSet has had; upstream keeps `spec.templateGeneration` of older versions here.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

const COUNTS: [&str; 9] = [
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
];

fn prepare_create(object: &mut Value) {
    set_template_generation(object, 1);
}

fn prepare_update(part: Part, object: &mut Value, old: &Value) {
    if part != Part::Main {
        return;
    }
    let annotation = old.at("metadata").at("annotations").text(TEMPLATE_GENERATION);
    let before: i64 = annotation.parse().unwrap_or(1);
    let changed = !same(object.at("spec").at("template"), old.at("spec").at("template"));
    set_template_generation(object, before + i64::from(changed));
}

fn set_template_generation(object: &mut Value, generation: i64) {
    if let Value::Object(object) = object {
        let annotations = object_in(object_in(object, "metadata"), "annotations");
        annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string().into());
    }
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = object.at("spec");
    let (selector, template) = (spec.at("selector"), spec.at("template"));
    let at = path.child("selector");
    meta::label_selector(selector, &at, errors);
    let labels = template.at("metadata").at("labels");
    let (template_path, metadata_path) = (path.child("template"), path.child("template"));
    let metadata_path = metadata_path.child("metadata");
    if selector.is_null() || !meta::selects(selector, labels) {
        let detail = "`selector` does not match template `labels`";
        errors.invalid(&metadata_path.child("labels"), labels.clone(), detail);
    }
    if !selector.is_null() && meta::is_empty_selector(selector) {
        errors.invalid(&at, selector.clone(), "empty selector is invalid for daemonset");
    }
    pod::template(template, &template_path, errors);
    shared::always_restarts(template, "DaemonSet", &template_path, errors);
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        shared::not_negative(spec, field, &path, errors);
    }
    strategy(spec.at("updateStrategy"), &path.child("updateStrategy"), errors);
}

fn strategy(strategy: &Value, path: &Path, errors: &mut Errors) {
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" => rolling_update(strategy.at("rollingUpdate"), &path.child("rollingUpdate"), errors),
        _ => errors.not_supported(path, strategy.clone(), &["RollingUpdate", "OnDelete"]),
    }
}

fn rolling_update(rolling: &Value, path: &Path, errors: &mut Errors) {
    if rolling.is_null() {
        return errors.required(path, "");
    }
    let fields = ["maxUnavailable", "maxSurge"];
    for field in fields {
        shared::int_or_percent(rolling.at(field), &path.child(field), errors);
    }
    for field in fields {
        shared::at_most_all(rolling.at(field), &path.child(field), errors);
    }
    match (shared::number(rolling.at("maxUnavailable")) != 0, shared::number(rolling.at("maxSurge")) != 0) {
        (true, true) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.invalid(&path.child("maxSurge"), rolling.at("maxSurge").clone(), detail);
        }
        (false, false) => errors.required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

fn validate_update(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    if part == Part::Status {
        let path = Path::root("status");
        return COUNTS.iter().for_each(|field| shared::not_negative(object.at("status"), field, &path, errors));
    }
    validate(object, errors);
    shared::selector_unchanged(object, old, errors);
}

/// Only of a template that has changed.
fn warnings(part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    if part == Part::Main && old.is_none_or(|old| has_other_template(object, old)) {
        pod_warnings::template(object.at("spec").at("template"), &Path::root("spec").child("template"), warnings);
    }
}

fn has_other_template(object: &Value, old: &Value) -> bool {
    let [new, old] = [object, old].map(|one| one.at("metadata").at("annotations").text(TEMPLATE_GENERATION));
    new != old
}
