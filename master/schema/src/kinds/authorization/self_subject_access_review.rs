//! `authorization.k8s.io/v1` SelfSubjectAccessReview.

use serde_json::Value;

use super::rules;
use crate::errors::Errors;
use crate::kind::{Hooks, Kind, NameRule, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    verbs: &["create"],
    names: NameRule::Any,
    hooks: Hooks { validate, ..Hooks::PLAIN },
    ..Kind::cluster("authorization.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "SelfSubjectAccessReview",
    list: "SelfSubjectAccessReviewList",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
};

fn validate(object: &Value, errors: &mut Errors) {
    rules::attributes(object, errors);
    rules::no_metadata(object, errors);
}
