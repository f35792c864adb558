//! Where a pod may run: affinity, tolerations, spreading.

use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::meta;
use crate::names::{dns_label, dns_subdomain, label_value};
use crate::pod::label_keys;
use crate::value::Fields;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
pub(crate) const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(crate) fn affinity(affinity: &Value, path: &Path, errors: &mut Errors) {
    node_affinity(affinity.at("nodeAffinity"), &path.child("nodeAffinity"), errors);
    for field in ["podAffinity", "podAntiAffinity"] {
        pod_affinity(affinity.at(field), &path.child(field), errors);
    }
}

fn node_affinity(affinity: &Value, path: &Path, errors: &mut Errors) {
    if affinity.has(REQUIRED) {
        node_selector(affinity.at(REQUIRED), &path.child(REQUIRED), errors);
    }
    let preferred = path.child(PREFERRED);
    for (index, term) in affinity.list(PREFERRED).iter().enumerate() {
        let path = preferred.index(index);
        weight(term, &path, errors);
        node_term(term.at("preference"), false, &path.child("preference"), errors);
    }
}

fn weight(term: &Value, path: &Path, errors: &mut Errors) {
    let weight = term.int("weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

pub(crate) fn node_selector(selector: &Value, path: &Path, errors: &mut Errors) {
    let path = path.child("nodeSelectorTerms");
    let terms = selector.list("nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        node_term(term, true, &path.index(index), errors);
    }
}

/// `strict`: label values must be valid ones.
fn node_term(term: &Value, strict: bool, path: &Path, errors: &mut Errors) {
    let expressions = path.child("matchExpressions");
    for (index, requirement) in term.list("matchExpressions").iter().enumerate() {
        node_requirement(requirement, strict, &expressions.index(index), errors);
    }
    let fields = path.child("matchFields");
    for (index, requirement) in term.list("matchFields").iter().enumerate() {
        node_field(requirement, &fields.index(index), errors);
    }
}

fn node_requirement(requirement: &Value, strict: bool, path: &Path, errors: &mut Errors) {
    let values = requirement.list("values");
    let at = path.child("values");
    match requirement.text("operator") {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&at, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    meta::label_name(requirement.text("key"), &path.child("key"), errors);
    if strict {
        for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
            label_value(value).iter().for_each(|text| errors.invalid(&at.index(index), value, text));
        }
    }
}

fn node_field(requirement: &Value, path: &Path, errors: &mut Errors) {
    let values = requirement.list("values");
    let at = path.child("values");
    match requirement.text("operator") {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => {
            errors.required(&at, "must be only one value when `operator` is 'In' or 'NotIn' for node field selector");
        }
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    if requirement.text("key") != "metadata.name" {
        let key = requirement.text("key");
        return errors.invalid(&path.child("key"), key, "not a valid field selector key");
    }
    for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
        dns_subdomain(value).iter().for_each(|text| errors.invalid(&at.index(index), value, text));
    }
}

fn pod_affinity(affinity: &Value, path: &Path, errors: &mut Errors) {
    let required = path.child(REQUIRED);
    for (index, term) in affinity.list(REQUIRED).iter().enumerate() {
        pod_term(term, &required.index(index), errors);
    }
    let preferred = path.child(PREFERRED);
    for (index, term) in affinity.list(PREFERRED).iter().enumerate() {
        let path = preferred.index(index);
        weight(term, &path, errors);
        pod_term(term.at("podAffinityTerm"), &path.child("podAffinityTerm"), errors);
    }
}

fn pod_term(term: &Value, path: &Path, errors: &mut Errors) {
    for field in ["labelSelector", "namespaceSelector"] {
        meta::label_selector(term.at(field), &path.child(field), errors);
    }
    for name in term.list("namespaces").iter().filter_map(Value::as_str) {
        dns_label(name).iter().for_each(|text| errors.invalid(&path.child("namespace"), name, text));
    }
    label_keys::validate(term, path, errors);
    let topology = path.child("topologyKey");
    if term.text("topologyKey").is_empty() {
        errors.required(&topology, "can not be empty");
    }
    meta::label_name(term.text("topologyKey"), &topology, errors);
}

pub(crate) fn tolerations(tolerations: &[Value], path: &Path, errors: &mut Errors) {
    for (index, toleration) in tolerations.iter().enumerate() {
        toleration_of(toleration, &path.index(index), errors);
    }
}

fn toleration_of(toleration: &Value, path: &Path, errors: &mut Errors) {
    let (key, operator) = (toleration.text("key"), toleration.text("operator"));
    let (value, effect) = (toleration.text("value"), toleration.text("effect"));
    if !key.is_empty() {
        meta::label_name(key, &path.child("key"), errors);
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(&path.child("operator"), operator, detail);
    }
    if toleration.has("tolerationSeconds") && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.invalid(&path.child("effect"), effect, detail);
    }
    match operator {
        "" | "Equal" => {
            let wrong = label_value(value);
            if !wrong.is_empty() {
                errors.invalid(&path.child("operator"), value, &wrong.join(";"));
            }
        }
        "Exists" if !value.is_empty() => {
            let detail = "value must be empty when `operator` is 'Exists'";
            errors.invalid(&path.child("operator"), toleration.clone(), detail);
        }
        "Exists" => {}
        other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        errors.not_supported(&path.child("effect"), effect, EFFECTS);
    }
}

pub(crate) fn spread(spec: &Value, path: &Path, errors: &mut Errors) {
    let constraints = spec.list("topologySpreadConstraints");
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        let (key, action) = (constraint.text("topologyKey"), constraint.text("whenUnsatisfiable"));
        let skew = constraint.int("maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.invalid(&path.child("maxSkew"), skew, "must be greater than zero");
        }
        if key.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            errors.not_supported(&path.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        let again = |other: &Value| other.text("topologyKey") == key && other.text("whenUnsatisfiable") == action;
        if constraints.iter().skip(index + 1).any(again) {
            errors.duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), format!("{{{key}, {action}}}"));
        }
        if let Some(domains) = constraint.int("minDomains") {
            let at = path.child("minDomains");
            if domains <= 0 {
                errors.invalid(&at, domains, "must be greater than zero");
            }
            if action != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.invalid(&at, domains, &detail);
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let policy = constraint.at(field).as_str();
            if let Some(policy) = policy.filter(|p| !matches!(*p, "Honor" | "Ignore")) {
                errors.not_supported(&path.child(field), policy, &["Honor", "Ignore"]);
            }
        }
        label_keys::validate(constraint, &path, errors);
        meta::label_selector(constraint.at("labelSelector"), &path.child("labelSelector"), errors);
    }
}
