//! `authorization.k8s.io/v1` SelfSubjectRulesReview.

use crate::kind::{Kind, NameRule, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    verbs: &["create"],
    names: NameRule::Any,
    ..Kind::cluster("authorization.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "SelfSubjectRulesReview",
    list: "SelfSubjectRulesReviewList",
    plural: "selfsubjectrulesreviews",
    singular: "selfsubjectrulesreview",
};
