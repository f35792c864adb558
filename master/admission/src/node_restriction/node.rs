//! What a node may write of its own Node.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{Operation, Refusal, Request};

const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";
/// Labels of Kubernetes' own domains that a kubelet sets (`k8s.io/kubelet/pkg/apis.IsKubeletLabel`).
const KUBELET_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/windows-build",
];
const KUBELET_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

pub fn check(request: &Request<'_>, object: Option<&Value>, node: &str) -> Result<(), Refusal> {
    let name = if request.name.is_empty() { request.object_name(object) } else { request.name };
    if name != node {
        return Err(request.forbidden(object, &format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    let Some(new) = object else { return Ok(()) };
    match (request.operation, request.old) {
        (Operation::Create, _) => {
            let forbidden = forbidden_labels(new, &Value::Null);
            if forbidden.is_empty() {
                return Ok(());
            }
            let why = format!("node {node:?} is not allowed to set the following labels: {}", forbidden.join(", "));
            Err(request.forbidden(object, &why))
        }
        (Operation::Update, Some(old)) => check_update(request, new, old, node),
        _ => Ok(()),
    }
}

fn check_update(request: &Request<'_>, new: &Value, old: &Value, node: &str) -> Result<(), Refusal> {
    if differ(new, old, "/spec/taints") {
        return Err(request.forbidden(Some(new), &format!("node {node:?} is not allowed to modify taints")));
    }
    if differ(new, old, "/metadata/ownerReferences") {
        return Err(request.forbidden(Some(new), &format!("node {node:?} is not allowed to modify ownerReferences")));
    }
    let forbidden = forbidden_labels(new, old);
    if forbidden.is_empty() {
        return Ok(());
    }
    Err(request.forbidden(Some(new), &format!("is not allowed to modify labels: {}", forbidden.join(", "))))
}

/// Absent and empty are the same.
fn differ(new: &Value, old: &Value, pointer: &str) -> bool {
    let list = |object: &Value| object.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    list(new) != list(old)
}

/// Labels that differ and are not a node's to set, in order.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let none = Map::new();
    let labels = |object: &Value| object.pointer("/metadata/labels").and_then(Value::as_object).cloned();
    let (new, old) = (labels(new).unwrap_or_else(|| none.clone()), labels(old).unwrap_or(none));
    let keys: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    let changed = keys.into_iter().filter(|key| new.get(*key) != old.get(*key));
    changed.filter(|key| is_forbidden(key)).cloned().collect()
}

fn is_forbidden(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    let is_kubernetes = within("kubernetes.io") || within("k8s.io");
    let is_kubelet = KUBELET_LABELS.contains(&label) || KUBELET_DOMAINS.into_iter().any(within);
    within(RESTRICTED_DOMAIN) || is_kubernetes && !is_kubelet
}
