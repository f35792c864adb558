//! `admissionregistration.k8s.io/v1` ValidatingAdmissionPolicyBinding (KEP-3488).

use serde_json::Value;

use super::{mutating_admission_policy_binding, policies, rules};
use crate::errors::{Errors, Path};
use crate::kind::{Hooks, Kind, Names};
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    categories: &["api-extensions"],
    generation: true,
    columns: policies::BINDING_COLUMNS,
    unconditional_update: false,
    hooks: Hooks {
        default: policies::default_binding,
        row: mutating_admission_policy_binding::row,
        validate,
        ..rules::HOOKS
    },
    ..Kind::cluster("admissionregistration.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "ValidatingAdmissionPolicyBinding",
    list: "ValidatingAdmissionPolicyBindingList",
    plural: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
};

fn validate(object: &Value, errors: &mut Errors) {
    const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
    let (path, spec) = (Path::root("spec"), object.at("spec"));
    policies::binding(spec, &path, errors);
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
