//! Probes and lifecycle hooks.

use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::names::{http_header, port_name, port_number};
use crate::value::Fields;

const ACTIONS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// A probe; `once` where a single success must be enough.
pub(crate) fn probe(probe: &Value, once: bool, grace: Option<i64>, path: &Path, errors: &mut Errors) {
    if probe.is_null() {
        return;
    }
    action(probe, grace, path, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        not_negative(probe, field, path, errors);
    }
    if let Some(seconds) = probe.int("terminationGracePeriodSeconds") {
        let path = path.child("terminationGracePeriodSeconds");
        if seconds <= 0 {
            errors.invalid(&path, seconds, "must be greater than 0");
        }
        // Nothing is ended when a pod is not ready.
        if path.fields().contains("readinessProbe") {
            errors.invalid(&path, seconds, "must not be set for readinessProbes");
        }
    }
    let threshold = probe.int("successThreshold").unwrap_or(0);
    if once && threshold != 1 {
        errors.invalid(&path.child("successThreshold"), threshold, "must be 1");
    }
}

/// A number that may not be below zero.
pub(crate) fn not_negative(object: &Value, field: &str, path: &Path, errors: &mut Errors) {
    if let Some(number) = object.int(field).filter(|number| *number < 0) {
        errors.invalid(&path.child(field), number, "must be greater than or equal to 0");
    }
}

pub(crate) fn lifecycle(lifecycle: &Value, grace: Option<i64>, path: &Path, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        if lifecycle.has(hook) {
            action(lifecycle.at(hook), grace, &path.child(hook), errors);
        }
    }
}

/// Exactly one action.
fn action(handler: &Value, grace: Option<i64>, path: &Path, errors: &mut Errors) {
    let mut actions = ACTIONS.into_iter().filter(|action| handler.has(action));
    let Some(first) = actions.next() else {
        return errors.required(path, "must specify a handler type");
    };
    let value = handler.at(first);
    let at = path.child(first);
    match first {
        "exec" if value.list("command").is_empty() => errors.required(&at.child("command"), ""),
        "httpGet" => http_get(value, &at, errors),
        "tcpSocket" => port(value.at("port"), &at.child("port"), errors),
        "grpc" => {
            let number = value.int("port").unwrap_or(0);
            if let Some(text) = port_number(number) {
                errors.invalid(&at.child("port"), number, &text);
            }
        }
        "sleep" => {
            let seconds = value.int("seconds").unwrap_or(0);
            if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                errors.invalid(&at, seconds, &detail);
            }
        }
        _ => {}
    }
    for more in actions {
        errors.forbidden(&path.child(more), "may not specify more than 1 handler type");
    }
}

fn http_get(action: &Value, path: &Path, errors: &mut Errors) {
    if action.text("path").is_empty() {
        errors.required(&path.child("path"), "");
    }
    port(action.at("port"), &path.child("port"), errors);
    if !matches!(action.text("scheme"), "HTTP" | "HTTPS") {
        errors.not_supported(&path.child("scheme"), action.text("scheme"), &["HTTP", "HTTPS"]);
    }
    for header in action.list("httpHeaders") {
        let name = header.text("name");
        http_header(name).iter().for_each(|text| errors.invalid(&path.child("httpHeaders"), name, text));
    }
}

/// A port by number or by name.
pub(crate) fn port(port: &Value, path: &Path, errors: &mut Errors) {
    match port {
        Value::String(name) => {
            port_name(name).iter().for_each(|text| errors.invalid(path, name.as_str(), text));
        }
        other => {
            let number = other.as_i64().unwrap_or(0);
            if let Some(text) = port_number(number) {
                errors.invalid(path, number, &text);
            }
        }
    }
}
