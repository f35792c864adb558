//! What the status of a Job may say.

use serde_json::Value;

use super::job_policies::count_of;
use super::job_rules::is_indexed;
use crate::errors::{Errors, Path};
use crate::pod::handlers::not_negative;
use crate::table;
use crate::value::{Fields, same};

const STATUS: Path<'static> = Path::root("status");

pub(super) fn is_true(status: &Value, kind: &str) -> bool {
    table::condition(status, kind).is_some_and(|condition| condition.text("status") == "True")
}

pub(super) fn validate(object: &Value, old: &Value, errors: &mut Errors) {
    let status = object.at("status");
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        not_negative(status, field, &STATUS, errors);
    }
    conditions(status, errors);
    times(status, errors);
    finished(status, errors);
    indexes(object, errors);
    changes(object, old, errors);
    if status.int("ready").unwrap_or(0) > status.int("active").unwrap_or(0) {
        errors.invalid(&STATUS.child("ready"), status.at("ready").clone(), "cannot set more ready pods than active");
    }
}

/// Which conditions exclude and need each other.
fn conditions(status: &Value, errors: &mut Errors) {
    let is = |kind| is_true(status, kind);
    let (complete, failed, met, target) = (is("Complete"), is("Failed"), is("SuccessCriteriaMet"), is("FailureTarget"));
    let rules = [
        (complete && failed, "cannot set Complete=True and Failed=true conditions"),
        (complete && target, "cannot set Complete=True and FailureTarget=true conditions"),
        (failed && !target, "cannot set Failed=True condition without the FailureTarget=true condition"),
        (complete && !met, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"),
        (met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
    ];
    for (_, detail) in rules.iter().filter(|(broken, _)| *broken) {
        errors.wrong(&STATUS.child("conditions"), detail);
    }
}

fn times(status: &Value, errors: &mut Errors) {
    let (start, end) = (status.text("startTime"), status.text("completionTime"));
    let path = STATUS.child("completionTime");
    match (is_true(status, "Complete"), end.is_empty()) {
        (false, false) => {
            errors.invalid(&path, end, "cannot set completionTime when there is no Complete=True condition");
        }
        (true, true) => errors.required(&path, "completionTime is required for Complete jobs"),
        _ => {}
    }
    // Both are in UTC and of one length.
    if !start.is_empty() && !end.is_empty() && end < start {
        errors.invalid(&path, end, "must be equal to or after `startTime`");
    }
}

fn finished(status: &Value, errors: &mut Errors) {
    if !is_true(status, "Complete") && !is_true(status, "Failed") {
        return;
    }
    for field in ["active", "terminating"] {
        if let Some(count) = status.int(field).filter(|count| *count > 0) {
            errors.invalid(&STATUS.child(field), count, &format!("{field}>0 is invalid for finished job"));
        }
    }
    if status.text("startTime").is_empty() {
        errors.required(&STATUS.child("startTime"), "startTime is required for finished job");
    }
    let uncounted = status.at("uncountedTerminatedPods");
    if ["succeeded", "failed"].iter().any(|list| !uncounted.list(list).is_empty()) {
        let path = STATUS.child("uncountedTerminatedPods");
        errors.invalid(&path, uncounted.clone(), "must be empty for finished job");
    }
}

fn indexes(object: &Value, errors: &mut Errors) {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let completed = status.text("completedIndexes");
    if !completed.is_empty() && !is_indexed(spec) {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.invalid(&STATUS.child("completedIndexes"), completed, detail);
    }
    let failed = status.at("failedIndexes").as_str();
    if let Some(failed) = failed.filter(|_| !spec.has("backoffLimitPerIndex")) {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.invalid(&STATUS.child("failedIndexes"), failed, detail);
    }
    let Some(completions) = spec.int("completions") else { return };
    for (field, text) in [("completedIndexes", completed), ("failedIndexes", failed.unwrap_or_default())] {
        if let Err(why) = count_of(text, completions) {
            errors.invalid(&STATUS.child(field), text, &format!("error parsing {field}: {why}"));
        }
    }
}

/// What no later status takes back.
fn changes(object: &Value, old: &Value, errors: &mut Errors) {
    let (status, before) = (object.at("status"), old.at("status"));
    let path = STATUS.child("conditions");
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if is_true(before, kind) && !is_true(status, kind) {
            errors.wrong(&path, &format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    for field in ["failed", "succeeded"] {
        let count = status.int(field).unwrap_or(0);
        if count < before.int(field).unwrap_or(0) {
            errors.invalid(&STATUS.child(field), count, &format!("cannot decrease the {field} counter"));
        }
    }
    let (end, end_before) = (status.at("completionTime"), before.at("completionTime"));
    if !end.is_null() && !end_before.is_null() && end != end_before {
        errors.invalid(&STATUS.child("completionTime"), end.clone(), "field is immutable");
    }
    let (start, start_before) = (status.at("startTime"), before.at("startTime"));
    if !start_before.is_null() && !same(start, start_before) && !object.at("spec").flag("suspend") {
        let detail = "field is immutable for unsuspended job once set";
        errors.invalid(&STATUS.child("startTime"), start.clone(), detail);
    }
    if is_true(before, "SuccessCriteriaMet") && !is_true(status, "SuccessCriteriaMet") {
        errors.wrong(&path, "cannot disable the SuccessCriteriaMet=True condition");
    }
}
