//! What roles have in common, and what bindings have in common.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::Column;
use crate::meta;
use crate::names::{dns_subdomain, path_segment};
use crate::table;
use crate::value::{Fields, object_in, objects_in, same, set_if_unset};

pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) const BINDING_COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Role", "The role that is granted"),
    Column::AGE,
    Column::wide("Users", "Users who are granted the role"),
    Column::wide("Groups", "Groups that are granted the role"),
    Column::wide("ServiceAccounts", "Service accounts that are granted the role"),
];

pub(super) fn binding_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = object.at("roleRef");
    let subjects = |kind: &str| -> Value {
        let named = object.list("subjects").iter().filter(|s| s.text("kind") == kind).map(|s| match kind {
            "ServiceAccount" => format!("{}/{}", s.text("namespace"), s.text("name")),
            _ => s.text("name").to_string(),
        });
        named.collect::<Vec<_>>().join(", ").into()
    };
    vec![
        table::name(object),
        format!("{}/{}", role.text("kind"), role.text("name")).into(),
        table::age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

/// Users and groups, and the role, belong to this group where none is named.
pub(super) fn binding_default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    set_if_unset(object_in(object, "roleRef"), "apiGroup", GROUP);
    for subject in objects_in(object, "subjects") {
        if matches!(subject.text("kind"), "User" | "Group") {
            set_if_unset(subject, "apiGroup", GROUP);
        }
    }
}

/// Upstream's `ValidatePolicyRule` for each rule, and the selectors of an aggregated role.
pub(super) fn role_validate(object: &Value, namespaced: bool, errors: &mut Errors) {
    let rules = Path::root("rules");
    for (index, rule) in object.list("rules").iter().enumerate() {
        rule_validate(rule, namespaced, &rules.index(index), errors);
    }
    let aggregation = object.at("aggregationRule");
    if namespaced || aggregation.is_null() {
        return;
    }
    let path = Path::root("aggregationRule");
    let path = path.child("clusterRoleSelectors");
    let selectors = aggregation.list("clusterRoleSelectors");
    if selectors.is_empty() {
        errors.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (index, selector) in selectors.iter().enumerate() {
        meta::label_selector(selector, &path.index(index), errors);
    }
}

fn rule_validate(rule: &Value, namespaced: bool, path: &Path, errors: &mut Errors) {
    if rule.list("verbs").is_empty() {
        errors.required(&path.child("verbs"), "verbs must contain at least one value");
    }
    let regular = ["apiGroups", "resources", "resourceNames"].iter().any(|field| !rule.list(field).is_empty());
    if !rule.list("nonResourceURLs").is_empty() {
        let path = path.child("nonResourceURLs");
        let urls = rule.at("nonResourceURLs");
        if namespaced {
            errors.invalid(&path, urls.clone(), "namespaced rules cannot apply to non-resource URLs");
        }
        if regular {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.invalid(&path, urls.clone(), detail);
        }
        return;
    }
    if rule.list("apiGroups").is_empty() {
        errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if rule.list("resources").is_empty() {
        errors.required(&path.child("resources"), "resource rules must supply at least one resource");
    }
}

/// Upstream's `ValidateRoleBinding` and `ValidateClusterRoleBinding`.
pub(super) fn binding_validate(object: &Value, namespaced: bool, errors: &mut Errors) {
    let role = object.at("roleRef");
    let path = Path::root("roleRef");
    if role.text("apiGroup") != GROUP {
        errors.not_supported(&path.child("apiGroup"), role.text("apiGroup"), &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.text("kind")) {
        errors.not_supported(&path.child("kind"), role.text("kind"), kinds);
    }
    let name = role.text("name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    path_segment(name, false).iter().for_each(|text| errors.invalid(&path.child("name"), name, text));
    let path = Path::root("subjects");
    for (index, subject) in object.list("subjects").iter().enumerate() {
        subject_validate(subject, namespaced, &path.index(index), errors);
    }
}

fn subject_validate(subject: &Value, namespaced: bool, path: &Path, errors: &mut Errors) {
    let (name, group) = (subject.text("name"), subject.text("apiGroup"));
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    match subject.text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                dns_subdomain(name).iter().for_each(|text| errors.invalid(&path.child("name"), name, text));
            }
            if !group.is_empty() {
                errors.not_supported(&path.child("apiGroup"), group, &[""]);
            }
            if !namespaced && subject.text("namespace").is_empty() {
                errors.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" if group != GROUP => errors.not_supported(&path.child("apiGroup"), group, &[GROUP]),
        "User" | "Group" => {}
        other => errors.not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

/// A binding is for one role for good.
pub(super) fn role_ref_unchanged(object: &Value, old: &Value, errors: &mut Errors) {
    if !same(object.at("roleRef"), old.at("roleRef")) {
        errors.invalid(&Path::root("roleRef"), object.at("roleRef").clone(), "cannot change roleRef");
    }
}
