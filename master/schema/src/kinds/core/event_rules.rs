//! What both event APIs ask of an event; upstream's `pkg/apis/core/validation/events.go`.

use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::names::{dns_subdomain, qualified_name};
use crate::value::Fields;

/// An event without `eventTime` is of the old kind: only its place is checked.
pub(crate) fn validate(object: &Value, errors: &mut Errors) {
    let involved = object.at("involvedObject").text("namespace");
    let namespace = object.at("metadata").text("namespace");
    let path = Path::root("involvedObject");
    let path = path.child("namespace");
    // Events of cluster-wide objects live in `default`.
    if involved.is_empty() {
        if namespace != "default" && namespace != "kube-system" {
            errors.invalid(&path, "", "does not match event.namespace");
        }
    } else if involved != namespace {
        errors.invalid(&path, involved, "does not match event.namespace");
    }
    if !involved.is_empty() {
        dns_subdomain(namespace).iter().for_each(|text| errors.invalid(&Path::root("namespace"), namespace, text));
    }
    if object.has("eventTime") {
        new_style(object, errors);
    }
}

fn new_style(object: &Value, errors: &mut Errors) {
    let controller = object.text("reportingComponent");
    let path = Path::root("reportingController");
    if controller.is_empty() {
        errors.required(&path, "");
    } else {
        qualified_name(controller).iter().for_each(|text| errors.invalid(&path, controller, text));
    }
    for (field, most) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        let value = object.text(field);
        let path = Path::root(field);
        if value.is_empty() {
            errors.required(&path, "");
        } else if value.len() > most {
            errors.invalid(&path, "", &format!("can have at most {most} characters"));
        }
    }
    if object.text("message").len() > 1024 {
        errors.invalid(&Path::root("message"), "", "can have at most 1024 characters");
    }
    if !matches!(object.text("type"), "Normal" | "Warning") {
        errors.invalid(&Path::root("type"), "", &format!("has invalid value: {}", object.text("type")));
    }
}

pub(crate) fn validate_update(_part: crate::kind::Part, object: &Value, _old: &Value, errors: &mut Errors) {
    validate(object, errors);
}
