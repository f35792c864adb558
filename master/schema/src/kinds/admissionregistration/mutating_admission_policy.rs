//! `admissionregistration.k8s.io/v1` MutatingAdmissionPolicy (KEP-3962).

use expressions::Scope;
use jiff::Timestamp;
use serde_json::Value;

use super::{policies, rules};
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names};
use crate::table;
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
    categories: &["api-extensions"],
    generation: true,
    columns: COLUMNS,
    unconditional_update: false,
    hooks: Hooks { default: policies::default_policy, row, validate, ..rules::HOOKS },
    ..Kind::cluster("admissionregistration.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "MutatingAdmissionPolicy",
    list: "MutatingAdmissionPolicyList",
    plural: "mutatingadmissionpolicies",
    singular: "mutatingadmissionpolicy",
};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::integer("Mutations", "How many mutations it has"),
    Column::text("ParamKind", "The kind of its parameters"),
    Column::AGE,
];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    vec![
        table::name(object),
        spec.list("mutations").len().into(),
        policies::param_kind_cell(spec),
        table::age(object, now),
    ]
}

fn validate(object: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::root("spec"), object.at("spec"));
    let scope = policies::policy(spec, true, &path, errors);
    policies::no_deletes(spec.at("matchConstraints"), &path.child("matchConstraints"), errors);
    let place = path.child("mutations");
    if spec.list("mutations").is_empty() {
        errors.required(&place, "mutations must contain at least one item");
    }
    for (index, mutation) in spec.list("mutations").iter().enumerate() {
        one(mutation, &scope, &place.index(index), errors);
    }
    if spec.text("reinvocationPolicy").is_empty() {
        errors.required(&path.child("reinvocationPolicy"), "");
    }
    rules::word(spec, "reinvocationPolicy", &["IfNeeded", "Never"], &path, errors);
}

/// How mutations are written: the type, the field that has it, and what its expression makes.
const PATCHES: [(&str, &str, &str); 2] =
    [("ApplyConfiguration", "applyConfiguration", "Object"), ("JSONPatch", "jsonPatch", "list(JSONPatch)")];

fn one(mutation: &Value, scope: &Scope, path: &Path<'_>, errors: &mut Errors) {
    let said = mutation.text("patchType");
    if said.is_empty() {
        return errors.required(&path.child("patchType"), "");
    }
    if !PATCHES.iter().any(|(patch, ..)| *patch == said) {
        return errors.not_supported(&path.child("patchType"), said, &PATCHES.map(|(patch, ..)| patch));
    }
    for (patch, field, wanted) in PATCHES {
        let place = path.child(field);
        match (patch == said, mutation.has(field)) {
            (true, false) => errors.required(&place, &format!("must be specified when patchType is {said}")),
            (true, true) => match mutation.at(field).text("expression").trim() {
                "" => errors.required(&place.child("expression"), ""),
                text => rules::expression(text, (scope, &[wanted]), &place.child("expression"), errors),
            },
            (false, true) => {
                let detail = format!("must not be specified when patchType is {said}");
                errors.invalid(&place, format!("{{{field}}}"), &detail);
            }
            (false, false) => {}
        }
    }
}
