//! What policies in CEL and their bindings share, whether they validate or mutate
//! (`pkg/apis/admissionregistration/validation`).

use expressions::{Declared, Scope, Ty};
use serde_json::Value;

use super::rules;
use crate::errors::{Errors, Path};
use crate::kind::Column;
use crate::meta;
use crate::names::{dns_1035_label, dns_subdomain, path_segment};
use crate::table;
use crate::value::{Fields, object_in, set_if_unset};

pub(super) const BINDING_COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("PolicyName", "The policy that it puts into force"),
    Column::text("ParamRef", "The parameters of the policy"),
    Column::AGE,
];

pub(super) fn default_policy(object: &mut Value) {
    let Value::Object(object) = object else { return };
    let spec = object_in(object, "spec");
    set_if_unset(spec, "failurePolicy", "Fail");
    if let Some(Value::Object(constraints)) = spec.get_mut("matchConstraints") {
        rules::default(constraints, &["resourceRules", "excludeResourceRules"]);
    }
}

pub(super) fn default_binding(object: &mut Value) {
    let Value::Object(object) = object else { return };
    if let Some(Value::Object(matches)) = object_in(object, "spec").get_mut("matchResources") {
        rules::default(matches, &["resourceRules", "excludeResourceRules"]);
    }
}

/// `apiVersion/kind` of the parameters of a policy.
pub(super) fn param_kind_cell(spec: &Value) -> Value {
    let kind = spec.at("paramKind");
    let shown =
        if kind.is_null() { String::new() } else { format!("{}/{}", kind.text("apiVersion"), kind.text("kind")) };
    table::or(&shown, "<unset>")
}

/// Where a binding has its parameters.
pub(super) fn param_ref_cell(spec: &Value) -> Value {
    let params = spec.at("paramRef");
    let shown = match (params.text("namespace"), params.text("name")) {
        _ if params.is_null() => String::new(),
        (_, "") => return table::selector(params.at("selector")),
        ("", name) => format!("*/{name}"),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    table::or(&shown, "<unset>")
}

/// Everything that is judged alike of both sorts of policies. The answer is what their expressions know.
pub(super) fn policy(spec: &Value, patches: bool, path: &Path<'_>, errors: &mut Errors) -> Scope {
    rules::word(spec, "failurePolicy", &["Fail", "Ignore"], path, errors);
    param_kind(spec.at("paramKind"), &path.child("paramKind"), errors);
    constraints(spec, path, errors);
    let params = (!spec.at("paramKind").is_null()).then_some(Ty::Dyn);
    let declared = Declared { params, ..Declared::default() };
    rules::conditions(spec, &expressions::admission(declared.clone()), path, errors);
    variables(spec, expressions::admission(Declared { patches, ..declared }), &path.child("variables"), errors)
}

fn param_kind(kind: &Value, path: &Path<'_>, errors: &mut Errors) {
    if kind.is_null() {
        return;
    }
    let (version, name) = (kind.text("apiVersion"), kind.text("kind"));
    let place = path.child("apiVersion");
    let mut wrong = |place: &Path<'_>, value: &str, why: Vec<String>, lead: &str| {
        if !why.is_empty() {
            errors.invalid(place, value, &format!("{lead}{}", why.join(",")));
        }
    };
    match version.split('/').collect::<Vec<_>>().as_slice() {
        [""] => errors.required(&place, ""),
        [own] => wrong(&place, own, dns_1035_label(own), ""),
        [group, own] => {
            wrong(&place, group, dns_subdomain(group), "");
            match *own {
                "" => errors.invalid(&place, version, "version must be specified"),
                own => wrong(&place, own, dns_1035_label(own), ""),
            }
        }
        _ => errors.invalid(&place, version, &format!("unexpected GroupVersion string: {version}")),
    }
    match name {
        "" => errors.required(&path.child("kind"), ""),
        name => {
            let why = dns_1035_label(&name.to_lowercase());
            if !why.is_empty() {
                let detail = format!("may have mixed case, but should otherwise match: {}", why.join(","));
                errors.invalid(&path.child("kind"), name, &detail);
            }
        }
    }
}

fn constraints(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (constraints, place) = (spec.at("matchConstraints"), path.child("matchConstraints"));
    if constraints.is_null() {
        return errors.required(&place, "");
    }
    resources(constraints, &place, errors);
    if constraints.list("resourceRules").is_empty() {
        errors.required(&place.child("resourceRules"), "");
    }
}

/// Rules and selectors of a policy or its binding.
fn resources(matches: &Value, path: &Path<'_>, errors: &mut Errors) {
    rules::word(matches, "matchPolicy", &["Equivalent", "Exact"], path, errors);
    for selector in ["namespaceSelector", "objectSelector"] {
        meta::label_selector(matches.at(selector), &path.child(selector), errors);
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        let place = path.child(list);
        for (index, rule) in matches.list(list).iter().enumerate() {
            let place = place.index(index);
            names(rule, &place.child("resourceNames"), errors);
            rules::rule(rule, &place, errors);
        }
    }
}

fn names(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let names = rule.list("resourceNames");
    for (index, name) in names.iter().enumerate() {
        let (text, place) = (name.as_str().unwrap_or_default(), path.index(index));
        path_segment(text, false).iter().for_each(|why| errors.invalid(&place, text, why));
        if names.iter().take(index).any(|earlier| earlier == name) {
            errors.duplicate(&place, text);
        }
    }
}

/// Each variable knows those before it.
fn variables(spec: &Value, scope: Scope, path: &Path<'_>, errors: &mut Errors) -> Scope {
    let mut known: Vec<(&str, Ty)> = Vec::new();
    let with = |known: &[(&str, Ty)]| {
        let mut scope = scope.clone();
        scope.declare("variables", Ty::object("kubernetes.variables", known));
        scope
    };
    for (index, variable) in spec.list("variables").iter().enumerate() {
        let (name, text, place) = (variable.text("name"), variable.text("expression"), path.index(index));
        if name.trim().is_empty() {
            errors.required(&place.child("name"), "name is not specified");
        } else if !is_identifier(name) {
            errors.invalid(&place.child("name"), name, "must be a valid CEL identifier");
        }
        if known.iter().any(|(earlier, _)| *earlier == name) {
            errors.duplicate(&place.child("name"), name);
        }
        if text.trim().is_empty() {
            errors.required(&place.child("expression"), "expression is not specified");
            continue;
        }
        let inside = with(&known);
        rules::expression(text, (&inside, &[]), &place.child("expression"), errors);
        known.push((name, expressions::check(text, &inside).unwrap_or(Ty::Dyn)));
    }
    if known.is_empty() { scope } else { with(&known) }
}

fn is_identifier(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first == '_' || first.is_ascii_alphabetic())
        && letters.all(|letter| letter == '_' || letter.is_ascii_alphanumeric())
        && !expressions::RESERVED.contains(&name)
}

/// Everything that is judged alike of the bindings of both sorts of policies.
pub(super) fn binding(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (policy, place) = (spec.text("policyName"), path.child("policyName"));
    if policy.is_empty() {
        errors.required(&place, "");
    } else {
        dns_subdomain(policy).iter().for_each(|why| errors.invalid(&place, policy, why));
    }
    params(spec.at("paramRef"), &path.child("paramRef"), errors);
    resources(spec.at("matchResources"), &path.child("matchResources"), errors);
}

fn params(params: &Value, path: &Path<'_>, errors: &mut Errors) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    if params.is_null() {
        return;
    }
    let (name, has_selector) = (params.text("name"), params.has("selector"));
    if !name.is_empty() {
        path_segment(name, false).iter().for_each(|why| errors.invalid(&path.child("name"), name, why));
    }
    if !name.is_empty() && has_selector {
        errors.forbidden(&path.child("name"), EXCLUSIVE);
    }
    meta::label_selector(params.at("selector"), &path.child("selector"), errors);
    match (name.is_empty(), has_selector) {
        (false, true) => errors.forbidden(&path.child("selector"), EXCLUSIVE),
        (true, false) => errors.required(path, "one of name or selector must be specified"),
        _ => {}
    }
    match params.text("parameterNotFoundAction") {
        "" => errors.required(&path.child("parameterNotFoundAction"), ""),
        "Allow" | "Deny" => {}
        other => errors.not_supported(&path.child("parameterNotFoundAction"), other, &["Deny", "Allow"]),
    }
}

/// Policies that mutate cannot be asked about deletes.
pub(super) fn no_deletes(matches: &Value, path: &Path<'_>, errors: &mut Errors) {
    const OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
    let rules = path.child("resourceRules");
    let place = rules.child("operations");
    for rule in matches.list("resourceRules") {
        for operation in rule.list("operations").iter().filter_map(Value::as_str) {
            if !OPERATIONS.contains(&operation) {
                errors.not_supported(&place, operation, &OPERATIONS);
            }
        }
    }
}
