//! What webhooks and policies match: rules, selectors, conditions (`pkg/apis/admissionregistration/validation`).

use expressions::Scope;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Hooks, Part};
use crate::names::qualified_name;
use crate::value::{Fields, Object, object_in, objects_in, set_if_unset};
use crate::warnings::Warnings;

/// What the hooks of all configurations of admission begin with.
pub(super) const HOOKS: Hooks = Hooks { revalidate: true, warnings: warn_of_suffix, ..Hooks::PLAIN };

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
/// `MaxMatchConditionsCount`
const MOST_CONDITIONS: usize = 64;

/// Rules are about objects of every scope, and selectors select everything.
pub(super) fn default(holder: &mut Object, rules: &[&str]) {
    for list in rules {
        for rule in objects_in(holder, list) {
            set_if_unset(rule, "scope", "*");
        }
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        object_in(holder, selector);
    }
    set_if_unset(holder, "matchPolicy", "Equivalent");
}

/// The texts of a list, where `*` stands alone.
fn texts(rule: &Value, field: &str, what: &str, path: &Path<'_>, errors: &mut Errors) {
    let (list, place) = (rule.list(field), path.child(field));
    if list.is_empty() {
        errors.required(&place, "");
    }
    if list.len() > 1 && list.iter().any(|text| text == "*") {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.invalid(&place, rule.at(field).clone(), &detail);
    }
}

pub(super) fn rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    texts(rule, "operations", "operations", path, errors);
    let operations = path.child("operations");
    for (index, operation) in rule.list("operations").iter().filter_map(Value::as_str).enumerate() {
        if !OPERATIONS.contains(&operation) {
            errors.not_supported(&operations.index(index), operation, &OPERATIONS);
        }
    }
    texts(rule, "apiGroups", "API groups", path, errors);
    texts(rule, "apiVersions", "API versions", path, errors);
    for (field, list) in [("apiVersions", rule.list("apiVersions"))] {
        for (index, _) in list.iter().enumerate().filter(|(_, text)| **text == "") {
            errors.required(&path.child(field).index(index), "");
        }
    }
    resources(rule, path, errors);
    let scope = rule.text("scope");
    if !scope.is_empty() && !SCOPES.contains(&scope) {
        errors.not_supported(&path.child("scope"), scope, &SCOPES);
    }
}

fn resources(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (list, place) = (rule.list("resources"), path.child("resources"));
    if list.is_empty() {
        errors.required(&place, "");
    }
    let names: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
    for (index, _) in names.iter().enumerate().filter(|(_, name)| name.is_empty()) {
        errors.required(&place.index(index), "");
    }
    if names.len() > 1 && names.contains(&"*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        errors.invalid(&place, rule.at("resources").clone(), detail);
    }
    if names.contains(&"*") && names.iter().any(|name| *name != "*" && !name.contains('/')) {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(&place, rule.at("resources").clone(), detail);
    }
}

/// `scope`: what the expressions know.
pub(super) fn conditions(holder: &Value, scope: &Scope, path: &Path<'_>, errors: &mut Errors) {
    let conditions = holder.list("matchConditions");
    let place = path.child("matchConditions");
    if conditions.len() > MOST_CONDITIONS {
        errors.too_many(&place, conditions.len(), MOST_CONDITIONS);
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, condition) in conditions.iter().enumerate() {
        let (name, path) = (condition.text("name"), place.index(index));
        match condition.text("expression").trim() {
            "" => errors.required(&path.child("expression"), ""),
            trimmed => expression(trimmed, (scope, &["bool"]), &path.child("expression"), errors),
        }
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        if !name.is_empty() {
            qualified_name(name).iter().for_each(|why| errors.invalid(&path.child("name"), name, why));
        }
        if seen.contains(&name) {
            errors.duplicate(&path.child("name"), name);
        }
        seen.push(name);
    }
}

/// An expression whose value must be of one of some types (`compile.CompileCELExpression`).
pub(super) fn expression(text: &str, (scope, wanted): (&Scope, &[&str]), path: &Path<'_>, errors: &mut Errors) {
    match expressions::check(text, scope) {
        Err(issues) => errors.invalid(path, text, &format!("compilation failed: {issues}")),
        Ok(ty) => {
            let ty = ty.to_string();
            let fits = ty == "dyn" || wanted.is_empty() || wanted.contains(&ty.as_str());
            match wanted {
                _ if fits => {}
                [one] => errors.invalid(path, text, &format!("must evaluate to {one} but got {ty}")),
                many => errors.invalid(path, text, &format!("must evaluate to one of {many:?} but got {ty}")),
            }
        }
    }
}

/// One of the words that a field may hold.
pub(super) fn word(holder: &Value, field: &str, words: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let said = holder.text(field);
    if !said.is_empty() && !words.contains(&said) {
        errors.not_supported(&path.child(field), said, words);
    }
}

/// Names of configurations that lie in files (KEP-5793).
fn warn_of_suffix(_part: Part, object: &Value, _old: Option<&Value>, warnings: &mut Warnings) {
    const SUFFIX: &str = ".static.k8s.io";
    if object.at("metadata").text("name").ends_with(SUFFIX) {
        warnings.say(format!(
            "metadata.name: names ending with {SUFFIX:?} are reserved for static manifest-based configurations and cannot be managed via the API"
        ));
    }
}
