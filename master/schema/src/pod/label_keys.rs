//! `matchLabelKeys` and `mismatchLabelKeys`: a new pod's own labels become a part of its selectors (KEP-3243, KEP-3633).

use serde_json::{Value, json};

use crate::errors::{Errors, Path};
use crate::meta;
use crate::value::{Fields, Object, objects_in};

const LISTS: [(&str, &str); 2] = [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")];

/// Puts the labels that are named into the selectors of affinity terms and spread constraints.
pub(crate) fn merge(pod: &mut Value) {
    let labels = pod.at("metadata").at("labels").clone();
    let Some(Value::Object(spec)) = pod.get_mut("spec") else { return };
    objects_in(spec, "topologySpreadConstraints").for_each(|constraint| into_selector(constraint, &labels));
    let Some(Value::Object(affinity)) = spec.get_mut("affinity") else { return };
    for field in ["podAffinity", "podAntiAffinity"] {
        let Some(Value::Object(rules)) = affinity.get_mut(field) else { continue };
        objects_in(rules, "requiredDuringSchedulingIgnoredDuringExecution")
            .for_each(|term| into_selector(term, &labels));
        objects_in(rules, "preferredDuringSchedulingIgnoredDuringExecution")
            .filter_map(|preferred| preferred.get_mut("podAffinityTerm").and_then(Value::as_object_mut))
            .for_each(|term| into_selector(term, &labels));
    }
}

fn into_selector(holder: &mut Object, labels: &Value) {
    let mut added = Vec::new();
    for (list, operator) in LISTS {
        for key in holder.list(list).iter().filter_map(Value::as_str) {
            if let Some(value) = labels.at(key).as_str() {
                added.push(json!({ "key": key, "operator": operator, "values": [value] }));
            }
        }
    }
    let Some(Value::Object(selector)) = holder.get_mut("labelSelector") else { return };
    if added.is_empty() {
        return;
    }
    match selector.get_mut("matchExpressions") {
        Some(Value::Array(expressions)) => expressions.extend(added),
        _ => drop(selector.insert("matchExpressions".into(), added.into())),
    }
}

/// What is wrong with the lists of a term or constraint.
pub(crate) fn validate(holder: &Value, path: &Path, errors: &mut Errors) {
    for (list, _) in LISTS {
        let (keys, path) = (holder.list(list), path.child(list));
        if !keys.is_empty() && !holder.has("labelSelector") {
            errors.forbidden(&path, "must not be specified when labelSelector is not set");
        }
        for (index, key) in keys.iter().filter_map(Value::as_str).enumerate() {
            meta::label_name(key, &path.index(index), errors);
        }
    }
    let (keys, selector) = (holder.list("matchLabelKeys"), holder.at("labelSelector"));
    let mut seen: Vec<&str> = selector.entries("matchLabels").map(|(key, _)| key.as_str()).collect();
    // What was merged comes last, and is the second of its key only if the selector had it, too.
    for key in selector.list("matchExpressions").iter().map(|requirement| requirement.text("key")) {
        if let Some(index) = keys.iter().position(|one| one == key).filter(|_| seen.contains(&key)) {
            errors.invalid(&path.index(index), key, "exists in both matchLabelKeys and labelSelector");
        }
        seen.push(key);
    }
    let (path, others) = (path.child("matchLabelKeys"), holder.list("mismatchLabelKeys"));
    for (index, key) in keys.iter().enumerate().filter(|(_, key)| others.contains(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.invalid(&path.index(index), key.clone(), detail);
    }
}
