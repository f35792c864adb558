//! The scale subresource: `autoscaling/v1` Scale of a workload and back. Custom kinds say where their numbers are.

use serde_json::{Value, json};

use crate::custom::{self, ScalePaths};
use crate::kind::Kind;
use crate::table;
use crate::value::{Fields, object_in, put};

fn paths(kind: &Kind) -> Option<&ScalePaths> {
    kind.custom.and_then(|custom| custom.scale())
}

/// The Scale of a workload.
pub fn of(kind: &Kind, workload: &Value) -> Value {
    let meta = workload.at("metadata");
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        put(&mut metadata, field, meta.at(field).clone());
    }
    let (replicas, current, selector) = match paths(kind) {
        Some(paths) => of_custom(paths, workload),
        None => {
            let count = |part: &str| workload.at(part).int("replicas");
            (count("spec"), count("status"), selector(workload.at("spec").at("selector")))
        }
    };
    let mut wanted = json!({});
    put(&mut wanted, "replicas", json!(replicas.filter(|replicas| *replicas != 0)));
    let mut status = json!({ "replicas": current.unwrap_or(0) });
    put(&mut status, "selector", selector);
    json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": metadata,
        "spec": wanted,
        "status": status,
    })
}

fn selector(given: &Value) -> Value {
    // A ReplicationController's is a plain map of labels.
    let is_map = given.as_object().is_some_and(|map| map.values().all(Value::is_string));
    let selector = if is_map { table::labels(given) } else { table::selector(given) };
    if selector == "<none>" { Value::Null } else { selector }
}

fn of_custom(paths: &ScalePaths, workload: &Value) -> (Option<i64>, Option<i64>, Value) {
    let number = |path: &[String]| custom::at(workload, path).and_then(Value::as_i64);
    let selector = paths.selector.as_ref().and_then(|path| custom::at(workload, path)).filter(|text| **text != "");
    (number(&paths.spec_replicas), number(&paths.status_replicas), selector.cloned().unwrap_or_default())
}

/// Sets the replicas of a workload.
fn set(kind: &Kind, workload: &mut crate::value::Object, replicas: Value) {
    match paths(kind) {
        Some(paths) => custom::set_at(workload, &paths.spec_replicas, replicas),
        None => {
            object_in(workload, "spec").insert("replicas".into(), replicas);
        }
    }
}

/// The workload with the replicas of a Scale, under the Scale's resource version where it names one.
pub fn apply(kind: &Kind, workload: &Value, scale: &Value) -> Value {
    let mut out = workload.clone();
    let Value::Object(object) = &mut out else { return out };
    let replicas = scale.at("spec").int("replicas").unwrap_or(0);
    set(kind, object, replicas.into());
    for field in ["resourceVersion", "uid"] {
        let value = scale.at("metadata").text(field);
        if !value.is_empty() {
            object_in(object, "metadata").insert(field.into(), value.into());
        }
    }
    out
}

/// What applying a Scale applies to its workload.
pub fn configuration(workload: &Kind, scale: &Value) -> Value {
    let mut meta = scale.at("metadata").clone();
    put(&mut meta, "creationTimestamp", Value::Null);
    let mut out = json!({ "apiVersion": workload.api_version(), "kind": workload.kind, "metadata": meta, "spec": {} });
    let replicas = scale.at("spec").at("replicas");
    if let Some(object) = out.as_object_mut().filter(|_| !replicas.is_null()) {
        set(workload, object, replicas.clone());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let kind = crate::Registry::builtin().by_kind("apps/v1", "Deployment").unwrap();
        let workload = json!({
            "metadata": { "name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": { "a": "b" } },
            "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "d" } } },
            "status": { "replicas": 2 },
        });
        let mut scale = of(kind, &workload);
        assert_eq!(scale["spec"], json!({ "replicas": 3 }));
        assert_eq!(scale["status"], json!({ "replicas": 2, "selector": "app=d" }));
        assert_eq!(scale["metadata"], json!({ "name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7" }));
        scale["spec"]["replicas"] = 0.into();
        assert_eq!(apply(kind, &workload, &scale)["spec"]["replicas"], 0);
        assert_eq!(of(kind, &apply(kind, &workload, &scale))["spec"], json!({}));
    }
}
