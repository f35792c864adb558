//! `authorization.k8s.io/v1` SubjectAccessReview.

use crate::kind::{Kind, NameRule, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.authorization.v1.SubjectAccessReview",
    verbs: &["create"],
    names: NameRule::Any,
    ..Kind::cluster("authorization.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "SubjectAccessReview",
    list: "SubjectAccessReviewList",
    plural: "subjectaccessreviews",
    singular: "subjectaccessreview",
};
