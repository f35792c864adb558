//! `authorization.k8s.io/v1` SelfSubjectAccessReview.

use crate::kind::{Kind, NameRule, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    verbs: &["create"],
    names: NameRule::Any,
    ..Kind::cluster("authorization.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "SelfSubjectAccessReview",
    list: "SelfSubjectAccessReviewList",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
};
