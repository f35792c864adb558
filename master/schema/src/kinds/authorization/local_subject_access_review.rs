//! `authorization.k8s.io/v1` LocalSubjectAccessReview.

use crate::kind::{Kind, NameRule, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
    verbs: &["create"],
    names: NameRule::Any,
    ..Kind::namespaced("authorization.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "LocalSubjectAccessReview",
    list: "LocalSubjectAccessReviewList",
    plural: "localsubjectaccessreviews",
    singular: "localsubjectaccessreview",
};
