//! `admissionregistration.k8s.io/v1` ValidatingAdmissionPolicy (KEP-3488).

use jiff::Timestamp;
use serde_json::Value;

use super::rules;
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Subresource};
use crate::meta;
use crate::table;
use crate::value::{Fields, object_in, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
    categories: &["api-extensions"],
    subresources: &[Subresource::status("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy")],
    generation: true,
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, revalidate: true, ..Hooks::PLAIN },
    ..Kind::cluster("admissionregistration.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "ValidatingAdmissionPolicy",
    list: "ValidatingAdmissionPolicyList",
    plural: "validatingadmissionpolicies",
    singular: "validatingadmissionpolicy",
};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::integer("Validations", "How many validations it has"),
    Column::text("ParamKind", "The kind of its parameters"),
    Column::AGE,
];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    let kind = spec.at("paramKind");
    let kind =
        if kind.is_null() { String::new() } else { format!("{}/{}", kind.text("apiVersion"), kind.text("kind")) };
    vec![
        table::name(object),
        spec.list("validations").len().into(),
        table::or(&kind, "<unset>"),
        table::age(object, now),
    ]
}

fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    let spec = object_in(object, "spec");
    set_if_unset(spec, "failurePolicy", "Fail");
    if let Some(Value::Object(constraints)) = spec.get_mut("matchConstraints") {
        rules::default(constraints, &["resourceRules", "excludeResourceRules"]);
    }
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = object.at("spec");
    rules::word(spec, "failurePolicy", &["Fail", "Ignore"], &path, errors);
    let params = spec.at("paramKind");
    if !params.is_null() {
        for field in ["apiVersion", "kind"] {
            if params.text(field).is_empty() {
                errors.required(&path.child("paramKind").child(field), "");
            }
        }
    }
    constraints(spec, &path, errors);
    if spec.list("validations").is_empty() && spec.list("auditAnnotations").is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.required(&path.child("validations"), detail);
    }
    let validations = path.child("validations");
    for (index, validation) in spec.list("validations").iter().enumerate() {
        one(validation, &validations.index(index), errors);
    }
    let variables = path.child("variables");
    for (index, variable) in spec.list("variables").iter().enumerate() {
        let place = variables.index(index);
        if variable.text("name").is_empty() {
            errors.required(&place.child("name"), "name is not specified");
        }
        if spec.list("variables").iter().take(index).any(|earlier| earlier.at("name") == variable.at("name")) {
            errors.duplicate(&place.child("name"), variable.text("name"));
        }
        rules::expression(variable, "expression", &place, errors);
    }
    let annotations = path.child("auditAnnotations");
    for (index, annotation) in spec.list("auditAnnotations").iter().enumerate() {
        let place = annotations.index(index);
        if annotation.text("key").is_empty() {
            errors.required(&place.child("key"), "");
        }
        rules::expression(annotation, "valueExpression", &place, errors);
    }
    rules::conditions(spec, &path, errors);
}

fn constraints(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (constraints, place) = (spec.at("matchConstraints"), path.child("matchConstraints"));
    if constraints.is_null() {
        return errors.required(&place, "");
    }
    if constraints.list("resourceRules").is_empty() {
        errors.required(&place.child("resourceRules"), "");
    }
    resources(constraints, &place, errors);
}

/// Rules and selectors of a policy or its binding.
pub(super) fn resources(matches: &Value, path: &Path<'_>, errors: &mut Errors) {
    for list in ["resourceRules", "excludeResourceRules"] {
        let place = path.child(list);
        for (index, rule) in matches.list(list).iter().enumerate() {
            rules::rule(rule, &place.index(index), errors);
        }
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        meta::label_selector(matches.at(selector), &path.child(selector), errors);
    }
    rules::word(matches, "matchPolicy", &["Equivalent", "Exact"], path, errors);
}

fn one(validation: &Value, path: &Path<'_>, errors: &mut Errors) {
    const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
    let (expression, message) = (validation.text("expression").trim(), validation.text("message"));
    if expression.is_empty() {
        errors.required(&path.child("expression"), "expression is not specified");
    } else {
        rules::expression(validation, "expression", path, errors);
    }
    if !validation.text("messageExpression").is_empty() {
        rules::expression(validation, "messageExpression", path, errors);
    }
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&path.child("message"), message, "message must be non-empty if specified");
    } else if message.trim().contains('\n') {
        errors.invalid(&path.child("message"), message, "message must not contain line breaks");
    } else if expression.contains('\n') && message.is_empty() {
        errors.required(&path.child("message"), "message must be specified if expression contains line breaks");
    }
    rules::word(validation, "reason", &REASONS, path, errors);
}
