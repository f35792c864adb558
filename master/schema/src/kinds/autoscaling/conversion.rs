//! HorizontalPodAutoscalers between `autoscaling/v1` and `v2` (`pkg/apis/autoscaling/v1/conversion.go`).

use serde_json::{Map, Value, json};

use super::horizontal_pod_autoscaler::default_metrics;
use crate::value::{Fields, put};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// Annotations that stand for fields of the spec, and of the status.
pub(super) const SPECS_ANNOTATIONS: [&str; 2] = [METRICS, BEHAVIOR];
pub(super) const STATUS_ANNOTATIONS: [&str; 2] = [CURRENT_METRICS, CONDITIONS];

/// The sources of metrics: which field has them, and its fields as (in v1, where in v2).
type Sources = [(&'static str, &'static [(&'static str, &'static [&'static str])])];

const SPECS: &Sources = &[
    (
        "resource",
        &[
            ("name", &["name"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("averageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
];

const STATUSES: &Sources = &[
    (
        "resource",
        &[
            ("name", &["name"]),
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("averageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
];

/// An object of v1 as one of v2.
pub(super) fn to_v2(mut object: Value) -> Value {
    let mut metrics = Vec::new();
    let noted = |object: &Value, name: &str| -> Option<Value> {
        serde_json::from_str(object.at("metadata").at("annotations").text(name)).ok()
    };
    if let Some(Value::Array(others)) = noted(&object, METRICS) {
        metrics.extend(others.iter().map(|metric| specified(metric_to_v2(metric, SPECS))));
    }
    let mut spec = object.at("spec").clone();
    if let Some(percent) = spec.int("targetCPUUtilizationPercentage") {
        let target = json!({ "type": "Utilization", "averageUtilization": percent });
        metrics.push(json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } }));
    }
    put(&mut spec, "targetCPUUtilizationPercentage", Value::Null);
    put(&mut spec, "metrics", if metrics.is_empty() { default_metrics() } else { metrics.into() });
    if let Some(behavior) = noted(&object, BEHAVIOR) {
        put(&mut spec, "behavior", renamed(behavior, str::to_ascii_lowercase));
    }
    put(&mut object, "spec", spec);
    let mut status = object.at("status").clone();
    if let Some(percent) = status.int("currentCPUUtilizationPercentage") {
        let resource = json!({ "name": "cpu", "current": { "averageUtilization": percent } });
        put(&mut status, "currentMetrics", json!([{ "type": "Resource", "resource": resource }]));
    }
    put(&mut status, "currentCPUUtilizationPercentage", Value::Null);
    if let Some(Value::Array(all)) = noted(&object, CURRENT_METRICS) {
        let all: Vec<Value> = all.iter().map(|metric| metric_to_v2(metric, STATUSES)).collect();
        put(&mut status, "currentMetrics", all.into());
    }
    if let Some(conditions @ Value::Array(_)) = noted(&object, CONDITIONS) {
        put(&mut status, "conditions", conditions);
    }
    put(&mut object, "status", status);
    put(&mut object, "apiVersion", "autoscaling/v2".into());
    annotate(&mut object, &[]);
    object
}

/// An object of v2 as one of v1.
pub(super) fn from_v2(mut object: Value) -> Value {
    let mut notes: Vec<(&str, Value)> = Vec::new();
    let is_cpu = |metric: &Value| metric.text("type") == "Resource" && metric.at("resource").text("name") == "cpu";
    let utilization =
        |metric: &Value, of: &str| metric.at("resource").at(of).int("averageUtilization").filter(|_| is_cpu(metric));
    let mut spec = object.at("spec").clone();
    let metrics = spec.list("metrics").to_vec();
    let percent = metrics.iter().find_map(|metric| utilization(metric, "target"));
    let others = metrics.iter().filter(|metric| utilization(metric, "target").is_none());
    let others: Vec<Value> = others.map(|metric| metric_to_v1(metric, SPECS)).collect();
    notes.extend((!others.is_empty()).then(|| (METRICS, others.into())));
    if spec.has("behavior") {
        notes.push((BEHAVIOR, renamed(spec.at("behavior").clone(), str::to_ascii_uppercase)));
    }
    for field in ["metrics", "behavior"] {
        put(&mut spec, field, Value::Null);
    }
    put(&mut spec, "targetCPUUtilizationPercentage", json!(percent));
    put(&mut object, "spec", spec);
    let mut status = object.at("status").clone();
    let current = status.list("currentMetrics").to_vec();
    if !current.is_empty() {
        let all: Vec<Value> = current.iter().map(|metric| metric_to_v1(metric, STATUSES)).collect();
        notes.push((CURRENT_METRICS, all.into()));
    }
    if !status.list("conditions").is_empty() {
        notes.push((CONDITIONS, status.at("conditions").clone()));
    }
    for field in ["currentMetrics", "conditions"] {
        put(&mut status, field, Value::Null);
    }
    let percent = current.iter().find_map(|metric| utilization(metric, "current"));
    put(&mut status, "currentCPUUtilizationPercentage", json!(percent));
    put(&mut object, "status", status);
    put(&mut object, "apiVersion", "autoscaling/v1".into());
    annotate(&mut object, &notes);
    object
}

/// Makes these the only annotations that stand for fields.
fn annotate(object: &mut Value, notes: &[(&str, Value)]) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let mut annotations = metadata.remove("annotations").unwrap_or_else(|| json!({}));
    for name in SPECS_ANNOTATIONS.iter().chain(&STATUS_ANNOTATIONS) {
        let note = notes.iter().find(|(noted, _)| noted == name);
        put(&mut annotations, name, note.map(|(_, value)| value.to_string().into()).unwrap_or_default());
    }
    if annotations.as_object().is_some_and(|all| !all.is_empty()) {
        metadata.insert("annotations".into(), annotations);
    }
}

fn metric_to_v2(metric: &Value, sources: &Sources) -> Value {
    let mut out = json!({ "type": metric.at("type") });
    for (field, members) in sources.iter().filter(|(field, _)| metric.has(field)) {
        let mut source = json!({});
        for (name, place) in members.iter().filter(|(name, _)| metric.at(field).has(name)) {
            set(&mut source, place, metric.at(field).at(name).clone());
        }
        put(&mut out, field, source);
    }
    out
}

fn metric_to_v1(metric: &Value, sources: &Sources) -> Value {
    let mut out = json!({ "type": metric.at("type") });
    for (field, members) in sources.iter().filter(|(field, _)| metric.has(field)) {
        let mut source = json!({});
        for (name, place) in members.iter() {
            let value = place.iter().fold(metric.at(field), |at, step| at.at(step));
            put(&mut source, name, value.clone());
        }
        put(&mut out, field, source);
    }
    out
}

fn set(object: &mut Value, place: &[&str], value: Value) {
    match place {
        [] => {}
        [last] => put(object, last, value),
        [first, rest @ ..] => {
            let mut inner = if object.at(first).is_object() { object.at(first).clone() } else { json!({}) };
            set(&mut inner, rest, value);
            put(object, first, inner);
        }
    }
}

/// The type of its target, which v1 does not say.
fn specified(mut metric: Value) -> Value {
    for (field, _) in SPECS {
        let Some(target) = metric.get_mut(*field).and_then(|source| source.get_mut("target")) else { continue };
        let by_average = target.has("averageValue");
        // v1 cannot leave the value of an object out.
        if *field == "object" && by_average && target.text("value") == "0" {
            put(target, "value", Value::Null);
        }
        let kind = match (target.has("averageUtilization"), target.has("value")) {
            (true, _) => "Utilization",
            (false, true) if *field == "external" || !by_average => "Value",
            _ => "AverageValue",
        };
        put(target, "type", kind.into());
    }
    metric
}

/// The behaviour is noted with the names of Go's fields, whose first letters are great.
fn renamed(value: Value, first: fn(&str) -> String) -> Value {
    match value {
        Value::Object(fields) => {
            let name = |name: &str| {
                let (head, tail) = name.split_at(name.chars().next().map_or(0, char::len_utf8));
                format!("{}{tail}", first(head))
            };
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(field, value)| (name(&field), renamed(value, first))).collect::<Map<_, _>>())
        }
        Value::Array(list) => list.into_iter().map(|item| renamed(item, first)).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{from_v2, to_v2};

    fn v2(spec: Value, status: Value) -> Value {
        json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": { "name": "h", "annotations": { "own": "x" } }, "spec": spec, "status": status })
    }

    #[test]
    fn what_v1_has_no_fields_for_is_noted_and_comes_back() {
        let object = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" });
        let cpu = json!({ "type": "Utilization", "averageUtilization": 50 });
        let there = v2(
            json!({
                "maxReplicas": 5, "minReplicas": 1, "scaleTargetRef": object,
                "metrics": [
                    { "type": "Resource", "resource": { "name": "memory", "target": { "type": "AverageValue", "averageValue": "1Gi" } } },
                    { "type": "ContainerResource", "containerResource": { "name": "cpu", "container": "c", "target": cpu } },
                    { "type": "Pods", "pods": { "metric": { "name": "m", "selector": { "matchLabels": { "a": "b" } } },
                        "target": { "type": "AverageValue", "averageValue": "5" } } },
                    { "type": "Object", "object": { "describedObject": object, "metric": { "name": "m" },
                        "target": { "type": "Value", "value": "7" } } },
                    { "type": "External", "external": { "metric": { "name": "m" },
                        "target": { "type": "AverageValue", "averageValue": "9" } } },
                    { "type": "Resource", "resource": { "name": "cpu", "target": cpu } },
                ],
                "behavior": { "scaleUp": { "selectPolicy": "Max", "tolerance": "100m",
                    "policies": [{ "type": "Pods", "value": 1, "periodSeconds": 15 }] } },
            }),
            json!({
                "currentReplicas": 2, "desiredReplicas": 3,
                "conditions": [{ "type": "AbleToScale", "status": "True" }],
                "currentMetrics": [{ "type": "Resource", "resource": { "name": "cpu",
                    "current": { "averageUtilization": 40, "averageValue": "100m" } } }],
            }),
        );
        let here = from_v2(there.clone());
        assert_eq!(here["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(here["status"]["currentCPUUtilizationPercentage"], 40);
        assert_eq!(here["spec"].get("metrics"), None);
        let behavior = here["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/behavior"].as_str().unwrap();
        assert!(behavior.contains("\"ScaleUp\"") && behavior.contains("\"PeriodSeconds\":15"), "{behavior}");
        assert_eq!(to_v2(here), there);
    }

    #[test]
    fn nothing_said_means_a_target_of_80_percent() {
        let plain = json!({ "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "h" },
            "spec": { "maxReplicas": 3 }, "status": { "currentReplicas": 0 } });
        assert_eq!(to_v2(plain)["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    }
}
