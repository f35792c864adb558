//! `policy/v1` Eviction.

use crate::kind::{Kind, NameRule};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.policy.v1.Eviction",
    names: NameRule::Any,
    ..Kind::body("policy", "v1", "Eviction")
};
