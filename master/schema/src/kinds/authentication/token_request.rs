//! `authentication.k8s.io/v1` TokenRequest.

use crate::kind::{Kind, NameRule};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.authentication.v1.TokenRequest",
    names: NameRule::Any,
    ..Kind::body("authentication.k8s.io", "v1", "TokenRequest")
};
