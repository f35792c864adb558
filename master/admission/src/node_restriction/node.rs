//! What a node may write of its own Node.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{Operation, Refusal, Request};

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
    changed.filter(|key| !api::node_labels::is_a_nodes(key)).cloned().collect()
}
