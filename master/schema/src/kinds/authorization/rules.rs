//! What access reviews must say; upstream's `pkg/apis/authorization/validation`.

use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::value::Fields;

const SPEC: Path<'static> = Path::root("spec");

/// A review asks about a resource or about a path.
pub(super) fn attributes(object: &Value, errors: &mut Errors) {
    let spec = object.at("spec");
    match (spec.has("resourceAttributes"), spec.has("nonResourceAttributes")) {
        (true, true) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            errors.invalid(&SPEC.child("nonResourceAttributes"), spec.at("nonResourceAttributes").clone(), detail);
        }
        (false, false) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.invalid(&SPEC.child("resourceAttributes"), Value::Null, detail);
        }
        _ => {}
    }
}

pub(super) fn subject(object: &Value, errors: &mut Errors) {
    let spec = object.at("spec");
    if spec.text("user").is_empty() && spec.list("groups").is_empty() {
        errors.invalid(&SPEC.child("user"), "", "at least one of user or group must be specified");
    }
}

/// Fields of metadata that a review may carry.
fn stray(object: &Value, allowed: &[&str]) -> bool {
    object.entries("metadata").any(|(key, value)| {
        let ignored = matches!(key.as_str(), "managedFields" | "creationTimestamp");
        !ignored && !allowed.contains(&key.as_str()) && !value.is_null()
    })
}

pub(super) fn no_metadata(object: &Value, errors: &mut Errors) {
    if stray(object, &[]) {
        errors.invalid(&Path::root("metadata"), object.at("metadata").clone(), "must be empty");
    }
}

/// A local review is about its own namespace.
pub(super) fn local(object: &Value, errors: &mut Errors) {
    if stray(object, &["namespace"]) {
        let detail = "must be empty except for namespace";
        errors.invalid(&Path::root("metadata"), object.at("metadata").clone(), detail);
    }
    let spec = object.at("spec");
    let asked = spec.at("resourceAttributes").text("namespace");
    if spec.has("resourceAttributes") && asked != object.at("metadata").text("namespace") {
        let path = SPEC.child("resourceAttributes");
        errors.invalid(&path.child("namespace"), asked, "must match metadata.namespace");
    }
    if spec.has("nonResourceAttributes") {
        let detail = "disallowed on this kind of request";
        errors.invalid(&SPEC.child("nonResourceAttributes"), spec.at("nonResourceAttributes").clone(), detail);
    }
}
