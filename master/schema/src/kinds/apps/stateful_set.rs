//! `apps/v1` StatefulSet.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::shared;
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, NameRule, Names, Part, Subresource};
use crate::kinds::core::claim_rules;
use crate::names::dns_label;
use crate::pod::{validate, warnings as pod_warnings};
use crate::value::{Fields, object_in, put, same, set_if_unset};
use crate::warnings::Warnings;
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.apps.v1.StatefulSet",
    short_names: &["sts"],
    categories: &["all"],
    subresources: &[Subresource::SCALE, Subresource::status("apps", "v1", "StatefulSet")],
    names: NameRule::Label,
    generation: true,
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, validate_update, warnings, ..Hooks::PLAIN },
    ..Kind::namespaced("apps", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "StatefulSet", list: "StatefulSetList", plural: "statefulsets", singular: "statefulset" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Ready", "Number of the pod with ready state"),
    Column::AGE,
    Column::wide("Containers", "Names of the template's containers"),
    Column::wide("Images", "Images of the template's containers"),
];

const COUNTS: [&str; 7] = [
    "replicas",
    "readyReplicas",
    "currentReplicas",
    "updatedReplicas",
    "availableReplicas",
    "observedGeneration",
    "collisionCount",
];
/// What an update may change.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn default(object: &mut Value) {
    let Value::Object(set) = object else { return };
    let spec = object_in(set, "spec");
    set_if_unset(spec, "podManagementPolicy", "OrderedReady");
    let strategy = object_in(spec, "updateStrategy");
    if strategy.text("type").is_empty() {
        strategy.insert("type".into(), "RollingUpdate".into());
        object_in(strategy, "rollingUpdate");
    }
    if strategy.text("type") == "RollingUpdate" && strategy.has("rollingUpdate") {
        set_if_unset(object_in(strategy, "rollingUpdate"), "partition", 0);
    }
    let retention = object_in(spec, "persistentVolumeClaimRetentionPolicy");
    set_if_unset(retention, "whenDeleted", "Retain");
    set_if_unset(retention, "whenScaled", "Retain");
    set_if_unset(spec, "replicas", 1);
    set_if_unset(spec, "revisionHistoryLimit", 10);
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let [names, images] = table::containers(spec.at("template"));
    let ready = status.int("readyReplicas").unwrap_or(0);
    vec![
        table::name(object),
        format!("{ready}/{}", spec.int("replicas").unwrap_or(0)).into(),
        table::age(object, now),
        names,
        images,
    ]
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = object.at("spec");
    common(spec, &path, errors);
    let at = path.child("volumeClaimTemplates");
    for (index, claim) in spec.list("volumeClaimTemplates").iter().enumerate() {
        let path = at.index(index);
        claim_rules::claim_spec(claim.at("spec"), &path.child("spec"), errors);
    }
    let service = spec.text("serviceName");
    if !service.is_empty() {
        dns_label(service).iter().for_each(|text| errors.invalid(&path.child("serviceName"), service, text));
    }
}

fn common(spec: &Value, path: &Path, errors: &mut Errors) {
    match spec.text("podManagementPolicy") {
        "" => errors.required(&path.child("podManagementPolicy"), ""),
        "OrderedReady" | "Parallel" => {}
        other => errors.invalid(&path.child("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'"),
    }
    strategy(spec.at("updateStrategy"), &path.child("updateStrategy"), errors);
    let retention = path.child("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let policy = spec.at("persistentVolumeClaimRetentionPolicy").text(field);
        if !matches!(policy, "" | "Retain" | "Delete") {
            errors.not_supported(&retention.child(field), policy, &["Retain", "Delete"]);
        }
    }
    for field in ["replicas", "minReadySeconds"] {
        shared::not_negative(spec, field, path, errors);
    }
    shared::not_negative(spec.at("ordinals"), "start", &path.child("ordinals"), errors);
    selector_and_template(spec, path, errors);
}

fn strategy(strategy: &Value, path: &Path, errors: &mut Errors) {
    let rolling = strategy.at("rollingUpdate");
    match strategy.text("type") {
        "" => errors.required(path, ""),
        "OnDelete" => {
            if !rolling.is_null() {
                let detail = "only allowed for updateStrategy 'RollingUpdate'";
                errors.invalid(&path.child("rollingUpdate"), rolling.clone(), detail);
            }
        }
        "RollingUpdate" => {
            let at = path.child("rollingUpdate");
            shared::not_negative(rolling, "partition", &at, errors);
            let (most, at) = (rolling.at("maxUnavailable"), at.child("maxUnavailable"));
            if !most.is_null() {
                shared::int_or_percent(most, &at, errors);
                if shared::number(most) == 0 {
                    errors.invalid(&at, most.clone(), "cannot be 0");
                }
                shared::at_most_all(most, &at, errors);
            }
        }
        _ => errors.invalid(path, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

fn selector_and_template(spec: &Value, path: &Path, errors: &mut Errors) {
    let selector = spec.at("selector");
    let at = path.child("selector");
    if selector.is_null() {
        errors.required(&at, "");
    } else {
        meta::label_selector(selector, &at, errors);
        if meta::is_empty_selector(selector) {
            errors.invalid(&at, selector.clone(), "empty selector is invalid for statefulset");
        }
    }
    let at = path.child("template");
    let labels = spec.at("template").at("metadata").at("labels");
    if !meta::is_empty_selector(selector) && !meta::selects(selector, labels) {
        let path = at.child("metadata");
        errors.invalid(&path.child("labels"), labels.clone(), "`selector` does not match template `labels`");
    }
    validate::template(&as_made(spec), &at, errors);
    shared::always_restarts(spec.at("template"), "StatefulSet", &at, errors);
}

/// The template as pods get it: with the volumes of its claims, and without what the controller overwrites.
fn as_made(spec: &Value) -> Value {
    let mut template = spec.at("template").clone();
    let names: Vec<&str> =
        spec.list("volumeClaimTemplates").iter().map(|claim| claim.at("metadata").text("name")).collect();
    let Some(pod) = template.get_mut("spec") else { return template };
    put(pod, "hostname", Value::Null);
    put(pod, "subdomain", Value::Null);
    let claims = names.iter().map(|name| json!({ "name": name, "persistentVolumeClaim": { "claimName": name } }));
    let others = pod.list("volumes").iter().filter(|volume| !names.contains(&volume.text("name"))).cloned();
    let volumes: Vec<Value> = claims.chain(others).collect();
    put(pod, "volumes", volumes.into());
    template
}

fn validate_update(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    if part == Part::Status {
        let status = object.at("status");
        shared::status_counts(status, &COUNTS, "status.readyReplicas", errors);
        let path = Path::root("status");
        let (current, replicas) = (status.int("currentReplicas").unwrap_or(0), status.int("replicas").unwrap_or(0));
        if current > replicas {
            errors.invalid(&path.child("currentReplicas"), current, "cannot be greater than status.replicas");
        }
        let count = status.int("collisionCount").unwrap_or(0);
        if count < old.at("status").int("collisionCount").unwrap_or(0) {
            errors.invalid(&path.child("collisionCount"), count, "cannot be decremented");
        }
        return;
    }
    common(object.at("spec"), &Path::root("spec"), errors);
    let fixed = |object: &Value| {
        let mut spec = object.at("spec").clone();
        MUTABLE.iter().for_each(|field| put(&mut spec, field, Value::Null));
        spec
    };
    if !same(&fixed(object), &fixed(old)) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        errors.forbidden(&Path::root("spec"), detail);
    }
}

fn warnings(part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    if part != Part::Main {
        return;
    }
    pod_warnings::maker(part, object, old, warnings);
    let (spec, path) = (object.at("spec"), Path::root("spec"));
    let at = path.child("volumeClaimTemplates");
    for (index, claim) in spec.list("volumeClaimTemplates").iter().enumerate() {
        let path = at.index(index);
        // Upstream's path of an update has this step more.
        let of_update = path.child("Spec");
        claim_rules::warn_of_spec(claim.at("spec"), if old.is_none() { &path } else { &of_update }, warnings);
    }
    if spec.int("revisionHistoryLimit").is_some_and(|limit| limit < 0) {
        let text = "a negative value retains all historical revisions; a value >= 0 is recommended";
        warnings.of(&path.child("revisionHistoryLimit"), text);
    }
}
