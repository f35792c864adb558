//! The scale subresource of Deployments and ReplicaSets: `autoscaling/v1` Scale and back.

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::table;
use crate::value::{Fields, object_in, put};

/// The Scale of a workload.
pub fn of(workload: &Value) -> Value {
    let (meta, spec) = (workload.at("metadata"), workload.at("spec"));
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        put(&mut metadata, field, meta.at(field).clone());
    }
    let mut wanted = json!({});
    let replicas = spec.int("replicas").filter(|replicas| *replicas != 0);
    put(&mut wanted, "replicas", json!(replicas));
    let mut status = json!({ "replicas": workload.at("status").int("replicas").unwrap_or(0) });
    let given = spec.at("selector");
    // A ReplicationController's is a plain map of labels.
    let is_map = given.as_object().is_some_and(|map| map.values().all(Value::is_string));
    let selector = if is_map { table::labels(given) } else { table::selector(given) };
    if selector != "<none>" {
        put(&mut status, "selector", selector);
    }
    json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": metadata,
        "spec": wanted,
        "status": status,
    })
}

/// The workload with the replicas of a Scale, under the Scale's resource version where it names one.
pub fn apply(workload: &Value, scale: &Value) -> Value {
    let mut out = workload.clone();
    let Value::Object(object) = &mut out else { return out };
    let replicas = scale.at("spec").int("replicas").unwrap_or(0);
    object_in(object, "spec").insert("replicas".into(), replicas.into());
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
    let mut spec = json!({});
    put(&mut spec, "replicas", scale.at("spec").at("replicas").clone());
    json!({ "apiVersion": workload.api_version(), "kind": workload.kind, "metadata": meta, "spec": spec })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let workload = json!({
            "metadata": { "name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": { "a": "b" } },
            "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "d" } } },
            "status": { "replicas": 2 },
        });
        let mut scale = of(&workload);
        assert_eq!(scale["spec"], json!({ "replicas": 3 }));
        assert_eq!(scale["status"], json!({ "replicas": 2, "selector": "app=d" }));
        assert_eq!(scale["metadata"], json!({ "name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7" }));
        scale["spec"]["replicas"] = 0.into();
        assert_eq!(apply(&workload, &scale)["spec"]["replicas"], 0);
        assert_eq!(of(&apply(&workload, &scale))["spec"], json!({}));
    }
}
