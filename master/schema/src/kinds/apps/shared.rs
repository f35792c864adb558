//! What workloads have in common; upstream's `pkg/apis/apps/validation`.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::meta;
use crate::names::percent;
pub(crate) use crate::pod::handlers::not_negative;
use crate::pod::validate;
use crate::table::{self, count};
use crate::value::Fields;

/// The cells of what keeps a number of replicas.
pub(crate) fn replicas_row(object: &Value, now: Timestamp, selector: Value) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let [names, images] = table::containers(spec.at("template"));
    vec![
        table::name(object),
        count(spec, "replicas"),
        count(status, "replicas"),
        count(status, "readyReplicas"),
        table::age(object, now),
        names,
        images,
        selector,
    ]
}

/// The selector of a ReplicaSet or Deployment, which must match its template.
pub(crate) fn selector_and_template(spec: &Value, kind: &str, path: &Path, errors: &mut Errors) {
    let (selector, template) = (spec.at("selector"), spec.at("template"));
    let at = path.child("selector");
    if selector.is_null() {
        errors.required(&at, "");
    } else {
        meta::label_selector(selector, &at, errors);
        if meta::is_empty_selector(selector) {
            errors.invalid(&at, selector.clone(), &format!("empty selector is invalid for {kind}"));
        }
    }
    let at = path.child("template");
    let labels = template.at("metadata").at("labels");
    let matches = !selector.is_null() && (meta::is_empty_selector(selector) || meta::selects(selector, labels));
    if !matches {
        let metadata = at.child("metadata");
        let detail = "`selector` does not match template `labels`";
        errors.invalid(&metadata.child("labels"), labels.clone(), detail);
    }
    validate::template(template, &at, errors);
    always_restarts(template, "ReplicaSet", &at, errors);
}

/// Pods of controllers that run for ever restart for ever.
pub(crate) fn always_restarts(template: &Value, kind: &str, path: &Path, errors: &mut Errors) {
    let path = path.child("spec");
    let spec = template.at("spec");
    if spec.text("restartPolicy") != "Always" {
        errors.not_supported(&path.child("restartPolicy"), spec.text("restartPolicy"), &["Always"]);
    }
    if spec.has("activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&path.child("activeDeadlineSeconds"), &detail);
    }
}

pub(crate) fn selector_unchanged(object: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let (new, before) = (object.at("spec").at("selector"), old.at("spec").at("selector"));
    meta::immutable(new, before, &path.child("selector"), errors);
}

/// Counts of a status: none negative, none more than there are replicas.
pub(crate) fn status_counts(status: &Value, counts: &[&str], ready_name: &str, errors: &mut Errors) {
    let path = Path::root("status");
    counts.iter().for_each(|field| not_negative(status, field, &path, errors));
    let count = |field| status.int(field).unwrap_or(0);
    for field in ["updatedReplicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        if counts.contains(&field) && count(field) > count("replicas") {
            errors.invalid(&path.child(field), count(field), "cannot be greater than status.replicas");
        }
    }
    let available = count("availableReplicas");
    if available > count("readyReplicas") {
        let detail = format!("cannot be greater than {ready_name}");
        errors.invalid(&path.child("availableReplicas"), available, &detail);
    }
}

/// Upstream's `ValidatePositiveIntOrPercent`.
pub(crate) fn int_or_percent(value: &Value, path: &Path, errors: &mut Errors) {
    match value {
        Value::String(text) => percent(text).iter().for_each(|wrong| errors.invalid(path, text.as_str(), wrong)),
        other => {
            let number = other.as_i64().unwrap_or(0);
            if number < 0 {
                errors.invalid(path, number, "must be greater than or equal to 0");
            }
        }
    }
}

/// No more than everything.
pub(crate) fn at_most_all(value: &Value, path: &Path, errors: &mut Errors) {
    if value.is_string() && number(value) > 100 {
        errors.invalid(path, value.clone(), "must not be greater than 100%");
    }
}

/// The number of a count or of a percentage.
pub(crate) fn number(value: &Value) -> i64 {
    match value {
        Value::String(text) => text.strip_suffix('%').and_then(|digits| digits.parse().ok()).unwrap_or(0),
        other => other.as_i64().unwrap_or(0),
    }
}
