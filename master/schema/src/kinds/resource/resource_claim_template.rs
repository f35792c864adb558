//! `resource.k8s.io/v1` ResourceClaimTemplate.

use serde_json::Value;

use super::claim_rules;
use crate::errors::{Errors, Path};
use crate::kind::{Hooks, Kind, Names, Part};
use crate::meta;
use crate::value::{Fields, object_in};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.resource.v1.ResourceClaimTemplate",
    returns_deleted_object: true,
    hooks: Hooks { default, validate, validate_update, ..Hooks::PLAIN },
    ..Kind::namespaced("resource.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "ResourceClaimTemplate",
    list: "ResourceClaimTemplateList",
    plural: "resourceclaimtemplates",
    singular: "resourceclaimtemplate",
};

fn default(object: &mut Value) {
    if let Value::Object(object) = object {
        claim_rules::default(object_in(object_in(object, "spec"), "spec"));
    }
}

fn validate(object: &Value, errors: &mut Errors) {
    let (template, path) = (object.at("spec"), Path::root("spec"));
    let metadata = path.child("metadata");
    meta::labels(template.at("metadata").at("labels"), &metadata.child("labels"), errors);
    meta::annotations(template.at("metadata").at("annotations"), &metadata.child("annotations"), errors);
    claim_rules::spec(template.at("spec"), &path.child("spec"), errors);
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    meta::immutable(object.at("spec"), old.at("spec"), &Path::root("spec"), errors);
}
