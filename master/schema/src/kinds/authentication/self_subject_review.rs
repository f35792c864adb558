//! `authentication.k8s.io/v1` SelfSubjectReview.

use crate::kind::{Kind, NameRule, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.authentication.v1.SelfSubjectReview",
    verbs: &["create"],
    names: NameRule::Any,
    ..Kind::cluster("authentication.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "SelfSubjectReview",
    list: "SelfSubjectReviewList",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
};
