//! What a Job makes of pods that fail, succeed and are replaced.

use serde_json::Value;

use super::job_rules::is_indexed;
use crate::errors::{Errors, Path};
use crate::meta;
use crate::pod::handlers::not_negative;
use crate::value::Fields;

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: &[&str] = &["In", "NotIn"];
const STATUSES: &[&str] = &["False", "True", "Unknown"];
const MOST_RULES: usize = 20;
const MOST_PATTERNS: usize = 20;
const MOST_CODES: usize = 255;
const LONGEST_INDEXES: usize = 64 * 1024;

pub(super) fn all(spec: &Value, path: &Path, errors: &mut Errors) {
    if spec.has("podFailurePolicy") {
        let path = path.child("podFailurePolicy");
        failure(spec, &path.child("rules"), errors);
    }
    if spec.has("successPolicy") {
        let at = path.child("successPolicy");
        if is_indexed(spec) {
            success(spec, &at.child("rules"), errors);
        } else {
            errors.invalid(&at, spec.at("successPolicy").clone(), "requires indexed completion mode");
        }
    }
    let supported: &[&str] =
        if spec.has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    if let Some(policy) = spec.at("podReplacementPolicy").as_str().filter(|policy| !supported.contains(policy)) {
        errors.not_supported(&path.child("podReplacementPolicy"), policy, supported);
    }
}

/// `valid values: ["A" "B"]`, as Go prints a list of texts.
fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("valid values: [{}]", quoted.join(" "))
}

fn failure(spec: &Value, path: &Path, errors: &mut Errors) {
    let rules = spec.at("podFailurePolicy").list("rules");
    if rules.len() > MOST_RULES {
        errors.too_many(path, rules.len(), MOST_RULES);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        let action = rule.text("action");
        match action {
            "" => errors.required(&path.child("action"), &listed(ACTIONS)),
            "FailIndex" if !spec.has("backoffLimitPerIndex") => {
                errors.invalid(&path.child("action"), action, "requires the backoffLimitPerIndex to be set");
            }
            action if !ACTIONS.contains(&action) => errors.not_supported(&path.child("action"), action, ACTIONS),
            _ => {}
        }
        let (codes, conditions) = (rule.at("onExitCodes"), rule.list("onPodConditions"));
        if !codes.is_null() {
            exit_codes(codes, spec, &path.child("onExitCodes"), errors);
        }
        pod_conditions(conditions, &path.child("onPodConditions"), errors);
        match (codes.is_null(), conditions.is_empty()) {
            (false, false) => errors.wrong(&path, "specifying both OnExitCodes and OnPodConditions is not supported"),
            (true, true) => errors.wrong(&path, "specifying one of OnExitCodes and OnPodConditions is required"),
            _ => {}
        }
    }
}

fn exit_codes(codes: &Value, spec: &Value, path: &Path, errors: &mut Errors) {
    let operator = codes.text("operator");
    if operator.is_empty() {
        errors.required(&path.child("operator"), &listed(OPERATORS));
    } else if !OPERATORS.contains(&operator) {
        errors.not_supported(&path.child("operator"), operator, OPERATORS);
    }
    let pod = spec.at("template").at("spec");
    let mut containers = pod.list("containers").iter().chain(pod.list("initContainers"));
    if let Some(name) = codes.at("containerName").as_str().filter(|name| !containers.any(|c| c.text("name") == *name)) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&path.child("containerName"), name, detail);
    }
    let at = path.child("values");
    let values: Vec<i64> = codes.list("values").iter().filter_map(Value::as_i64).collect();
    if values.is_empty() {
        errors.invalid(&at, codes.at("values").clone(), "at least one value is required");
    } else if values.len() > MOST_CODES {
        errors.too_many(&at, values.len(), MOST_CODES);
    }
    for (index, value) in values.iter().enumerate() {
        if operator == "In" && *value == 0 {
            errors.invalid(&at.index(index), 0, "must not be 0 for the In operator");
        }
        if values.iter().take(index).any(|other| other == value) {
            errors.duplicate(&at.index(index), *value);
        }
    }
    if !values.is_sorted() {
        errors.invalid(&at, codes.at("values").clone(), "must be ordered");
    }
}

fn pod_conditions(patterns: &[Value], path: &Path, errors: &mut Errors) {
    if patterns.len() > MOST_PATTERNS {
        errors.too_many(path, patterns.len(), MOST_PATTERNS);
    }
    for (index, pattern) in patterns.iter().enumerate() {
        let path = path.index(index);
        meta::label_name(pattern.text("type"), &path.child("type"), errors);
        let status = pattern.text("status");
        if status.is_empty() {
            errors.required(&path.child("status"), &listed(STATUSES));
        } else if !STATUSES.contains(&status) {
            errors.not_supported(&path.child("status"), status, STATUSES);
        }
    }
}

fn success(spec: &Value, path: &Path, errors: &mut Errors) {
    let rules = spec.at("successPolicy").list("rules");
    if rules.is_empty() {
        errors.required(path, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > MOST_RULES {
        errors.too_many(path, rules.len(), MOST_RULES);
    }
    let completions = spec.int("completions").unwrap_or(0);
    for (index, rule) in rules.iter().enumerate() {
        success_rule(rule, completions, &path.index(index), errors);
    }
}

fn success_rule(rule: &Value, completions: i64, path: &Path, errors: &mut Errors) {
    let (count, indexes) = (rule.int("succeededCount"), rule.at("succeededIndexes").as_str());
    if count.is_none() && indexes.is_none() {
        errors.required(path, "at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut total = 0;
    if let Some(text) = indexes {
        let at = path.child("succeededIndexes");
        if text.len() > LONGEST_INDEXES {
            errors.too_long(&at, LONGEST_INDEXES);
        }
        match count_of(text, completions) {
            Ok(found) => total = found,
            Err(why) => errors.invalid(&at, text, &format!("error parsing succeededIndexes: {why}")),
        }
    }
    not_negative(rule, "succeededCount", path, errors);
    let at = path.child("succeededCount");
    let limits = [
        (true, completions, "specified completions"),
        (indexes.is_some(), total, "indexes in the specified succeededIndexes field"),
    ];
    for (_, most, what) in limits.into_iter().filter(|(given, most, _)| *given && count.is_some_and(|c| c > *most)) {
        let detail = format!("must be less than or equal to {most} (the number of {what})");
        errors.invalid(&at, count, &detail);
    }
}

/// How many indexes a text like `1,3-5` names.
pub(super) fn count_of(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, None);
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = interval_of(interval, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

fn interval_of(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let limits: Vec<&str> = text.split('-').collect();
    let number = |limit: &str| match limit.parse::<i64>() {
        Ok(index) if index >= completions => Err(format!("too large index: {limit:?}")),
        Ok(index) => Ok(index),
        Err(_) => Err(format!("cannot convert string to integer for index: {limit:?}")),
    };
    match limits.as_slice() {
        [one] => number(one).map(|index| (index, index)),
        [first, end] => {
            let (first, end) = (number(first)?, number(end)?);
            if first >= end {
                return Err(format!("non-increasing order, previous: {first}, current: {end}"));
            }
            Ok((first, end))
        }
        _ => Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        )),
    }
}
