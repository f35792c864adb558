//! `autoscaling/v1` Scale.

use crate::kind::{Kind, NameRule};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.autoscaling.v1.Scale",
    names: NameRule::Any,
    ..Kind::body("autoscaling", "v1", "Scale")
};
