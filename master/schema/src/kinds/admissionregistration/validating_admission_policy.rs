//! `admissionregistration.k8s.io/v1` ValidatingAdmissionPolicy (KEP-3488).

use expressions::Scope;
use jiff::Timestamp;
use serde_json::Value;

use super::{policies, rules};
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Subresource};
use crate::names::qualified_name;
use crate::table;
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
    categories: &["api-extensions"],
    subresources: &[Subresource::status("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy")],
    generation: true,
    columns: COLUMNS,
    unconditional_update: false,
    hooks: Hooks { default: policies::default_policy, row, validate, ..rules::HOOKS },
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

/// `maxAuditAnnotations`
const MOST_ANNOTATIONS: usize = 20;
/// `maxAuditAnnotationValueExpressionLength`
const LONGEST_VALUE: usize = 5 * 1024;

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    vec![
        table::name(object),
        spec.list("validations").len().into(),
        policies::param_kind_cell(spec),
        table::age(object, now),
    ]
}

fn validate(object: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::root("spec"), object.at("spec"));
    let scope = policies::policy(spec, false, &path, errors);
    let (validations, annotations) = (path.child("validations"), path.child("auditAnnotations"));
    if spec.list("validations").is_empty() && spec.list("auditAnnotations").is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.required(&validations, detail);
        errors.required(&annotations, detail);
    }
    for (index, validation) in spec.list("validations").iter().enumerate() {
        one(validation, &scope, &validations.index(index), errors);
    }
    audit_annotations(object, &scope, &annotations, errors);
}

fn audit_annotations(object: &Value, scope: &Scope, path: &Path<'_>, errors: &mut Errors) {
    let (name, all) = (object.at("metadata").text("name"), object.at("spec").list("auditAnnotations"));
    if all.len() > MOST_ANNOTATIONS {
        let detail = format!("must not have more than {MOST_ANNOTATIONS} auditAnnotations");
        errors.invalid(path, all.to_vec(), &detail);
    }
    for (index, annotation) in all.iter().enumerate() {
        let (key, text, place) = (annotation.text("key"), annotation.text("valueExpression"), path.index(index));
        let at_key = place.child("key");
        if name.is_empty() {
            errors.invalid(&at_key, key, "requires metadata.name be non-empty");
        } else {
            let whole = format!("{name}/{key}");
            qualified_name(&whole).iter().for_each(|why| errors.invalid(&at_key, whole.as_str(), why));
        }
        let at_value = place.child("valueExpression");
        match text.trim() {
            "" => errors.required(&at_value, "valueExpression is not specified"),
            long if long.len() > LONGEST_VALUE => {
                errors.required(&at_value, &format!("must not exceed {LONGEST_VALUE} bytes in length"));
            }
            text => rules::expression(text, (scope, &["string", "null"]), &at_value, errors),
        }
        if all.iter().take(index).any(|earlier| earlier.at("key") == annotation.at("key")) {
            errors.duplicate(&at_key, key);
        }
    }
}

fn one(validation: &Value, scope: &Scope, path: &Path<'_>, errors: &mut Errors) {
    const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
    let text = |field: &str| validation.text(field).to_owned();
    let (expression, message, made) = (text("expression"), text("message"), text("messageExpression"));
    match expression.trim() {
        "" => errors.required(&path.child("expression"), "expression is not specified"),
        _ => rules::expression(&expression, (scope, &["bool"]), &path.child("expression"), errors),
    }
    let place = path.child("messageExpression");
    match made.trim() {
        "" if made.is_empty() => {}
        "" => errors.invalid(&place, made.as_str(), "must be non-empty if specified"),
        _ => rules::expression(&made, (scope, &["string"]), &place, errors),
    }
    let place = path.child("message");
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&place, message.as_str(), "must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        errors.invalid(&place, message.as_str(), "must not contain line breaks");
    }
    rules::word(validation, "reason", &REASONS, path, errors);
}
