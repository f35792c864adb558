//! `authentication.k8s.io/v1` TokenReview.

use crate::kind::{Kind, NameRule, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.authentication.v1.TokenReview",
    verbs: &["create"],
    names: NameRule::Any,
    ..Kind::cluster("authentication.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "TokenReview", list: "TokenReviewList", plural: "tokenreviews", singular: "tokenreview" };
