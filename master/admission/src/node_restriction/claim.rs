//! What a node may change of a PersistentVolumeClaim: how large its volume has become (`admitPVCStatus`).

use serde_json::Value;

use crate::{Operation, Refusal, Request};

/// What the growing of a volume changes in the status.
const STATUS: [&str; 4] = ["allocatedResourceStatuses", "allocatedResources", "capacity", "conditions"];
/// What says nothing of who wishes what.
const METADATA: [&str; 2] = ["managedFields", "resourceVersion"];

pub fn check(request: &Request<'_>, object: Option<&Value>, node: &str) -> Result<(), Refusal> {
    if request.subresource != "status" {
        return Err(request.forbidden(object, "may only update PVC status"));
    }
    let (Operation::Update, Some(old), Some(new)) = (request.operation, request.old, object) else {
        let why = format!("unexpected operation {:?}", request.operation.as_str());
        return Err(request.forbidden(object, &why));
    };
    if rest(old) == rest(new) {
        return Ok(());
    }
    let why = format!("node {node:?} is not allowed to update fields other than status.quantity and status.conditions");
    Err(request.forbidden(object, &why))
}

/// A claim without what a node may change.
fn rest(claim: &Value) -> Value {
    let mut rest = claim.clone();
    for (part, fields) in [("status", STATUS.as_slice()), ("metadata", METADATA.as_slice())] {
        if let Some(part) = rest.get_mut(part).and_then(Value::as_object_mut) {
            part.retain(|name, _| !fields.contains(&name.as_str()));
        }
    }
    without_empty(&mut rest);
    rest
}

/// What is empty is as good as what is not there (`equality.Semantic`).
fn without_empty(value: &mut Value) {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(without_empty);
            map.retain(|_, value| !is_empty(value));
        }
        Value::Array(list) => list.iter_mut().for_each(without_empty),
        _ => {}
    }
}
