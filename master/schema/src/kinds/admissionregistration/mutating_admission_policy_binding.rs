//! `admissionregistration.k8s.io/v1` MutatingAdmissionPolicyBinding (KEP-3962).

use jiff::Timestamp;
use serde_json::Value;

use super::{policies, rules};
use crate::errors::{Errors, Path};
use crate::kind::{Hooks, Kind, Names};
use crate::table;
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
    categories: &["api-extensions"],
    generation: true,
    columns: policies::BINDING_COLUMNS,
    unconditional_update: false,
    hooks: Hooks { default: policies::default_binding, row, validate, ..rules::HOOKS },
    ..Kind::cluster("admissionregistration.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "MutatingAdmissionPolicyBinding",
    list: "MutatingAdmissionPolicyBindingList",
    plural: "mutatingadmissionpolicybindings",
    singular: "mutatingadmissionpolicybinding",
};

pub(super) fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    vec![table::name(object), spec.at("policyName").clone(), policies::param_ref_cell(spec), table::age(object, now)]
}

fn validate(object: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::root("spec"), object.at("spec"));
    policies::binding(spec, &path, errors);
    policies::no_deletes(spec.at("matchResources"), &path.child("matchResources"), errors);
}
