//! Writes pod statuses to the API server (pkg/kubelet/status): a strategic merge patch of what changed, and only then.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use crate::client::is_not_found;

/// What became of a status.
#[derive(Debug)]
pub enum Written {
    /// The server has it; this is the object now.
    Accepted(Box<Pod>),
    /// There is no such pod any more.
    Gone,
}

/// Sends `status` where it differs from the status that `base` has.
///
/// # Errors
/// What the server said.
pub async fn write(client: &kube::Client, base: &Pod, status: &PodStatus) -> Result<Written, kube::Error> {
    let old = serde_json::to_value(base.status.clone().unwrap_or_default()).unwrap_or_default();
    let new = serde_json::to_value(status).unwrap_or_default();
    let Some(change) = diff(&old, &new) else { return Ok(Written::Accepted(Box::new(base.clone()))) };
    let meta = &base.metadata;
    // With the uid, a pod that was made anew under the same name is not touched.
    let patch = json!({"metadata": {"uid": meta.uid}, "status": change});
    let api: Api<Pod> = Api::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default());
    let name = meta.name.as_deref().unwrap_or_default();
    match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(pod) => Ok(Written::Accepted(Box::new(pod))),
        Err(error) if is_not_found(&error) || is_other_pod(&error) => Ok(Written::Gone),
        Err(error) => Err(error),
    }
}

/// The name now belongs to another pod, whose uid is not to be changed. Other conflicts pass.
fn is_other_pod(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    match status.code {
        409 => status.message.contains("Precondition failed: UID in precondition"),
        422 => causes.any(|cause| cause.field == "metadata.uid"),
        _ => false,
    }
}

/// Lists of a pod status that are merged by a key; all others are replaced as a whole.
const MERGED: [(&str, &str); 3] = [("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip")];

/// The strategic merge patch from one status to another; `None` when they are equal.
fn diff(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return (old != new).then(|| new.clone()) };
    let mut out = Map::new();
    for (field, value) in new {
        let before = old.get(field).unwrap_or(&Value::Null);
        if before == value {
            continue;
        }
        match MERGED.iter().find(|(name, _)| name == field) {
            Some((_, key)) => merge_list(field, key, before, value, &mut out),
            None => drop(out.insert(field.clone(), value.clone())),
        }
    }
    for field in old.keys().filter(|field| !new.contains_key(*field)) {
        out.insert(field.clone(), Value::Null);
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

fn merge_list(field: &str, key: &str, old: &Value, new: &Value, out: &mut Map<String, Value>) {
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let (old, new) = (items(old), items(new));
    let find = |list: &[Value], item: &Value| list.iter().find(|other| other.get(key) == item.get(key)).cloned();
    let mut changes: Vec<Value> = Vec::new();
    for item in &new {
        if find(&old, item).as_ref() != Some(item) {
            changes.push(with_removed_fields(find(&old, item), item));
        }
    }
    for item in old.iter().filter(|item| find(&new, item).is_none()) {
        changes.push(json!({"$patch": "delete", key: item.get(key)}));
    }
    let order: Vec<Value> = new.iter().map(|item| json!({ key: item.get(key) })).collect();
    if !order.is_empty() {
        out.insert(format!("$setElementOrder/{field}"), Value::Array(order));
    }
    out.insert(field.to_owned(), Value::Array(changes));
}

/// An element is merged into the old one, so that fields that are gone must be said to be.
fn with_removed_fields(old: Option<Value>, new: &Value) -> Value {
    let mut out = new.clone();
    if let (Some(Value::Object(old)), Value::Object(fields)) = (old, &mut out) {
        for name in old.keys() {
            fields.entry(name.clone()).or_insert(Value::Null);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_pod_is_told_from_a_conflict() {
        let answered = |code: u16, message: &str, field: &str| {
            let status = json!({"code": code, "message": message, "details": {"causes": [{"field": field}]}});
            is_other_pod(&kube::Error::Api(serde_json::from_value(status).unwrap()))
        };
        assert!(answered(422, "Pod \"p\" is invalid", "metadata.uid"));
        assert!(answered(409, "… Precondition failed: UID in precondition: a, UID in object meta: b", ""));
        assert!(!answered(409, "Operation cannot be fulfilled on pods \"squid-0\": the object has been modified", ""));
        assert!(!answered(422, "Pod \"squid-0\" is invalid", "status.podIPs"));
    }

    #[test]
    fn only_changes_are_sent() {
        let old = json!({"phase": "Pending", "reason": "x", "conditions": [
            {"type": "Ready", "status": "False", "message": "m"}, {"type": "Other", "status": "True"}
        ]});
        assert_eq!(diff(&old, &old), None);
        let new = json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "Other", "status": "True"}
        ]});
        assert_eq!(
            diff(&old, &new).unwrap(),
            json!({
                "phase": "Running", "reason": null,
                "podIPs": [{"ip": "10.0.0.1"}], "$setElementOrder/podIPs": [{"ip": "10.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "True", "message": null}],
                "$setElementOrder/conditions": [{"type": "Ready"}, {"type": "Other"}]
            })
        );
    }

    #[test]
    fn elements_that_are_gone_are_deleted() {
        let change = diff(&json!({"podIPs": [{"ip": "a"}]}), &json!({"podIPs": [{"ip": "b"}]})).unwrap();
        assert_eq!(change["podIPs"], json!([{"ip": "b"}, {"$patch": "delete", "ip": "a"}]));
    }
}
