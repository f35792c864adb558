//! `admissionregistration.k8s.io/v1` ValidatingAdmissionPolicyBinding (KEP-3488).

use jiff::Timestamp;
use serde_json::Value;

use super::rules;
use super::validating_admission_policy::resources;
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names};
use crate::meta;
use crate::table;
use crate::value::{Fields, object_in};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    categories: &["api-extensions"],
    generation: true,
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, revalidate: true, ..Hooks::PLAIN },
    ..Kind::cluster("admissionregistration.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "ValidatingAdmissionPolicyBinding",
    list: "ValidatingAdmissionPolicyBindingList",
    plural: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("PolicyName", "The policy that it puts into force"),
    Column::text("ParamRef", "The parameters of the policy"),
    Column::AGE,
];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    let params = spec.at("paramRef");
    let shown = match (params.text("namespace"), params.text("name")) {
        _ if params.is_null() => String::new(),
        (_, "") => "*".to_owned(),
        ("", name) => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    vec![table::name(object), spec.at("policyName").clone(), table::or(&shown, "<unset>"), table::age(object, now)]
}

fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    if let Some(Value::Object(matches)) = object_in(object, "spec").get_mut("matchResources") {
        rules::default(matches, &["resourceRules", "excludeResourceRules"]);
    }
}

fn validate(object: &Value, errors: &mut Errors) {
    const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
    let (path, spec) = (Path::root("spec"), object.at("spec"));
    if spec.text("policyName").is_empty() {
        errors.required(&path.child("policyName"), "");
    }
    resources(spec.at("matchResources"), &path.child("matchResources"), errors);
    params(spec.at("paramRef"), &path.child("paramRef"), errors);
    let (actions, place) = (spec.list("validationActions"), path.child("validationActions"));
    if actions.is_empty() {
        errors.required(&place, "at least one validation action is required");
    }
    for (index, action) in actions.iter().enumerate() {
        let text = action.as_str().unwrap_or_default();
        if !ACTIONS.contains(&text) {
            errors.not_supported(&place.index(index), text, &ACTIONS);
        }
        if actions.iter().take(index).any(|earlier| earlier == action) {
            errors.duplicate(&place.index(index), text);
        }
    }
    let has = |wanted: &str| actions.iter().any(|action| action == wanted);
    if has("Deny") && has("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.invalid(&place, spec.at("validationActions").clone(), detail);
    }
}

fn params(params: &Value, path: &Path<'_>, errors: &mut Errors) {
    if params.is_null() {
        return;
    }
    if !params.text("name").is_empty() && params.has("selector") {
        let detail = "name and selector are mutually exclusive";
        errors.forbidden(&path.child("name"), detail);
    } else if params.text("name").is_empty() && !params.has("selector") {
        errors.required(path, "one of name or selector must be specified");
    }
    meta::label_selector(params.at("selector"), &path.child("selector"), errors);
    match params.text("parameterNotFoundAction") {
        "" => errors.required(&path.child("parameterNotFoundAction"), ""),
        "Allow" | "Deny" => {}
        other => errors.not_supported(&path.child("parameterNotFoundAction"), other, &["Allow", "Deny"]),
    }
}
