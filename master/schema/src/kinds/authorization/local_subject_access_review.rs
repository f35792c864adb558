//! `authorization.k8s.io/v1` LocalSubjectAccessReview.

use serde_json::Value;

use super::rules;
use crate::errors::Errors;
use crate::kind::{Hooks, Kind, NameRule, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
    verbs: &["create"],
    names: NameRule::Any,
    hooks: Hooks { validate, ..Hooks::PLAIN },
    ..Kind::namespaced("authorization.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "LocalSubjectAccessReview",
    list: "LocalSubjectAccessReviewList",
    plural: "localsubjectaccessreviews",
    singular: "localsubjectaccessreview",
};

fn validate(object: &Value, errors: &mut Errors) {
    rules::attributes(object, errors);
    rules::subject(object, errors);
    rules::local(object, errors);
}
