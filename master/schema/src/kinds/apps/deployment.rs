//! `apps/v1` Deployment.

use jiff::Timestamp;
use serde_json::Value;

use super::shared;
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part, Subresource};
use crate::pod::warnings as pod_warnings;
use crate::table::{self, count};
use crate::value::{Fields, object_in, put, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.apps.v1.Deployment",
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &[Subresource::SCALE, Subresource::status("apps", "v1", "Deployment")],
    generation: true,
    columns: COLUMNS,
    hooks: Hooks {
        default,
        row,
        prepare_update,
        validate,
        validate_update,
        warnings: pod_warnings::named_maker,
        ..Hooks::PLAIN
    },
    ..Kind::namespaced("apps", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "Deployment", list: "DeploymentList", plural: "deployments", singular: "deployment" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Ready", "Ready replicas of those asked for"),
    Column { kind: "string", ..Column::integer("Up-to-date", "Replicas of the latest template") },
    Column { kind: "string", ..Column::integer("Available", "Replicas that have been ready for minReadySeconds") },
    Column::AGE,
    Column::wide("Containers", "Names of the template's containers"),
    Column::wide("Images", "Images of the template's containers"),
    Column::wide("Selector", "Label selector of the pods"),
];

fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    let spec = object_in(object, "spec");
    set_if_unset(spec, "replicas", 1);
    set_if_unset(spec, "revisionHistoryLimit", 10);
    set_if_unset(spec, "progressDeadlineSeconds", 600);
    let strategy = object_in(spec, "strategy");
    set_if_unset(strategy, "type", "RollingUpdate");
    if strategy.text("type") == "RollingUpdate" {
        let rolling = object_in(strategy, "rollingUpdate");
        set_if_unset(rolling, "maxUnavailable", "25%");
        set_if_unset(rolling, "maxSurge", "25%");
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let ready = status.int("readyReplicas").unwrap_or(0);
    let [names, images] = table::containers(spec.at("template"));
    vec![
        table::name(object),
        format!("{ready}/{}", spec.int("replicas").unwrap_or(0)).into(),
        count(status, "updatedReplicas"),
        count(status, "availableReplicas"),
        table::age(object, now),
        names,
        images,
        table::selector(spec.at("selector")),
    ]
}

const COUNTS: [&str; 7] = [
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "collisionCount",
];

/// A status keeps the labels of the object.
fn prepare_update(part: Part, object: &mut Value, old: &Value) {
    if let Some(meta) = object.get_mut("metadata").filter(|_| part == Part::Status) {
        put(meta, "labels", old.at("metadata").at("labels").clone());
    }
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = object.at("spec");
    shared::not_negative(spec, "replicas", &path, errors);
    shared::selector_and_template(spec, "deployment", &path, errors);
    strategy(spec.at("strategy"), &path.child("strategy"), errors);
    for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        shared::not_negative(spec, field, &path, errors);
    }
    let deadline = spec.int("progressDeadlineSeconds");
    if let Some(deadline) = deadline.filter(|d| *d <= spec.int("minReadySeconds").unwrap_or(0)) {
        let detail = "must be greater than minReadySeconds";
        errors.invalid(&path.child("progressDeadlineSeconds"), deadline, detail);
    }
}

fn strategy(strategy: &Value, path: &Path, errors: &mut Errors) {
    let at = path.child("rollingUpdate");
    match strategy.text("type") {
        "Recreate" => {
            if strategy.has("rollingUpdate") {
                errors.forbidden(&at, "may not be specified when strategy `type` is 'Recreate'");
            }
        }
        "RollingUpdate" => rolling_update(strategy.at("rollingUpdate"), &at, errors),
        _ => errors.not_supported(path, strategy.clone(), &["Recreate", "RollingUpdate"]),
    }
}

fn rolling_update(rolling: &Value, path: &Path, errors: &mut Errors) {
    if rolling.is_null() {
        return errors.required(path, "this should be defaulted and never be nil");
    }
    for field in ["maxUnavailable", "maxSurge"] {
        shared::int_or_percent(rolling.at(field), &path.child(field), errors);
    }
    let at = path.child("maxUnavailable");
    if shared::number(rolling.at("maxUnavailable")) == 0 && shared::number(rolling.at("maxSurge")) == 0 {
        errors.invalid(&at, rolling.at("maxUnavailable").clone(), "may not be 0 when `maxSurge` is 0");
    }
    shared::at_most_all(rolling.at("maxUnavailable"), &at, errors);
}

fn validate_update(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    if part == Part::Status {
        return shared::status_counts(object.at("status"), &COUNTS, "readyReplicas", errors);
    }
    validate(object, errors);
    shared::selector_unchanged(object, old, errors);
}
