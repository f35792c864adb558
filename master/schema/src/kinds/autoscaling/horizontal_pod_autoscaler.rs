//! `autoscaling/v2` HorizontalPodAutoscaler (`pkg/apis/autoscaling/{v2,validation}`), which is how it is stored.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::metrics;
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part, Subresource};
use crate::names::path_segment;
use crate::table;
use crate::value::{Fields, Object, object_in, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &[Subresource::status("autoscaling", "v2", "HorizontalPodAutoscaler")],
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, validate_update, ..Hooks::PLAIN },
    ..Kind::namespaced("autoscaling", "v2", NAMES)
};

pub(super) const NAMES: Names = Names {
    kind: "HorizontalPodAutoscaler",
    list: "HorizontalPodAutoscalerList",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
};

pub(super) const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Reference", "What is scaled"),
    Column::text("Targets", "The metrics: what they are, and what they should be"),
    Column::text("MinPods", "The least replicas"),
    Column::text("MaxPods", "The most replicas"),
    Column::text("Replicas", "The replicas that there are"),
    Column::AGE,
];

/// `MaxStabilizationWindowSeconds`
const LONGEST_WINDOW: i64 = 3600;
/// `MaxPeriodSeconds`
const LONGEST_PERIOD: i64 = 1800;

pub(super) fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, target) = (object.at("spec"), object.at("spec").at("scaleTargetRef"));
    vec![
        table::name(object),
        format!("{}/{}", target.text("kind"), target.text("name")).into(),
        metrics::shown(spec.list("metrics"), object.at("status").list("currentMetrics")).into(),
        spec.int("minReplicas").map_or("<unset>".into(), |least| least.to_string().into()),
        spec.int("maxReplicas").unwrap_or(0).into(),
        object.at("status").int("currentReplicas").unwrap_or(0).into(),
        table::age(object, now),
    ]
}

/// What is measured where nothing else is said (`DefaultCPUUtilization`).
pub(super) fn default_metrics() -> Value {
    let target = json!({ "type": "Utilization", "averageUtilization": 80 });
    json!([{ "type": "Resource", "resource": { "name": "cpu", "target": target } }])
}

fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    let spec = object_in(object, "spec");
    set_if_unset(spec, "minReplicas", 1);
    if spec.list("metrics").is_empty() {
        spec.insert("metrics".into(), default_metrics());
    }
    // Who says something of the behaviour is told the rest of it.
    if let Some(Value::Object(behavior)) = spec.get_mut("behavior") {
        let percent = json!({ "type": "Percent", "value": 100, "periodSeconds": 15 });
        let pods = json!({ "type": "Pods", "value": 4, "periodSeconds": 15 });
        let up = object_in(behavior, "scaleUp");
        set_if_unset(up, "stabilizationWindowSeconds", 0);
        default_rules(up, json!([pods, percent.clone()]));
        default_rules(object_in(behavior, "scaleDown"), json!([percent]));
    }
}

fn default_rules(rules: &mut Object, policies: Value) {
    set_if_unset(rules, "selectPolicy", "Max");
    set_if_unset(rules, "policies", policies);
}

fn validate(object: &Value, errors: &mut Errors) {
    let needs_group = object.at("spec").at("scaleTargetRef").text("kind") != "ReplicationController";
    spec(object.at("spec"), (1, Some(needs_group)), errors);
}

fn validate_update(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    if part == Part::Status {
        let path = Path::root("status");
        for field in ["currentReplicas", "desiredReplicas"] {
            if let Some(count) = object.at("status").int(field).filter(|count| *count < 0) {
                errors.invalid(&path.child(field), count, "must be greater than or equal to 0");
            }
        }
        return;
    }
    let target = |object: &'_ Value| {
        let target = object.at("spec").at("scaleTargetRef");
        (target.text("apiVersion").to_owned(), target.text("kind").to_owned())
    };
    let (new, before) = (target(object), target(old));
    let needs_group = (new != before).then(|| new.1 != "ReplicationController");
    let least = if old.at("spec").int("minReplicas") == Some(0) { 0 } else { 1 };
    spec(object.at("spec"), (least, needs_group), errors);
}

/// `least`: how small `minReplicas` may be; and whether the target's version must name a group, `None` where it is not judged.
fn spec(spec: &Value, (least, needs_group): (i64, Option<bool>), errors: &mut Errors) {
    let path = Path::root("spec");
    let (min, max) = (spec.int("minReplicas"), spec.int("maxReplicas").unwrap_or(0));
    if let Some(min) = min.filter(|min| *min < least) {
        errors.invalid(&path.child("minReplicas"), min, &format!("must be greater than or equal to {least}"));
    }
    let place = path.child("maxReplicas");
    match max {
        0 => errors.required(&place, "must be set and greater than 0"),
        ..0 => errors.invalid(&place, max, "must be greater than or equal to 1"),
        _ => {}
    }
    if min.is_some_and(|min| max < min) {
        errors.invalid(&place, max, "must be greater than or equal to `minReplicas`");
    }
    reference(spec.at("scaleTargetRef"), needs_group, &path.child("scaleTargetRef"), errors);
    metrics::validate(spec, &path.child("metrics"), errors);
    let place = path.child("behavior");
    for field in ["scaleUp", "scaleDown"] {
        if spec.at("behavior").has(field) {
            rules(spec.at("behavior").at(field), &place.child(field), errors);
        }
    }
}

/// `ValidateCrossVersionObjectReference`
pub(super) fn reference(reference: &Value, needs_group: Option<bool>, path: &Path<'_>, errors: &mut Errors) {
    for field in ["kind", "name"] {
        let (said, place) = (reference.text(field), path.child(field));
        if said.is_empty() {
            errors.required(&place, "");
        }
        path_segment(said, false).iter().for_each(|why| errors.invalid(&place, said, why));
    }
    let Some(needs_group) = needs_group else { return };
    let (version, place) = (reference.text("apiVersion"), path.child("apiVersion"));
    match version.matches('/').count() {
        0 if needs_group => errors.invalid(&place, version, "apiVersion must specify API group"),
        0 | 1 => {}
        _ => errors.invalid(&place, version, &format!("unexpected GroupVersion string: {version}")),
    }
}

fn rules(rules: &Value, path: &Path<'_>, errors: &mut Errors) {
    const SELECTIONS: [&str; 3] = ["Disabled", "Max", "Min"];
    let place = path.child("stabilizationWindowSeconds");
    match rules.int("stabilizationWindowSeconds") {
        Some(window @ ..0) => errors.invalid(&place, window, "must be greater than or equal to zero"),
        Some(window) if window > LONGEST_WINDOW => {
            errors.invalid(&place, window, &format!("must be less than or equal to {LONGEST_WINDOW}"));
        }
        _ => {}
    }
    let selection = rules.text("selectPolicy");
    if !selection.is_empty() && !SELECTIONS.contains(&selection) {
        errors.not_supported(&path.child("selectPolicy"), selection, &SELECTIONS);
    }
    let place = path.child("policies");
    if rules.list("policies").is_empty() {
        errors.required(&place, "must specify at least one Policy");
    }
    for (index, one) in rules.list("policies").iter().enumerate() {
        policy(one, &place.index(index), errors);
    }
    if let Some(tolerance) = rules.at("tolerance").as_str()
        && metrics::sign(tolerance) < 0
    {
        errors.invalid(&path.child("tolerance"), tolerance, "must be greater than or equal to 0");
    }
}

fn policy(policy: &Value, path: &Path<'_>, errors: &mut Errors) {
    const TYPES: [&str; 2] = ["Percent", "Pods"];
    if !TYPES.contains(&policy.text("type")) {
        errors.not_supported(&path.child("type"), policy.text("type"), &TYPES);
    }
    let (value, period) = (policy.int("value").unwrap_or(0), policy.int("periodSeconds").unwrap_or(0));
    if value <= 0 {
        errors.invalid(&path.child("value"), value, "must be greater than zero");
    }
    if period <= 0 {
        errors.invalid(&path.child("periodSeconds"), period, "must be greater than zero");
    }
    if period > LONGEST_PERIOD {
        let detail = format!("must be less than or equal to {LONGEST_PERIOD}");
        errors.invalid(&path.child("periodSeconds"), period, &detail);
    }
}
