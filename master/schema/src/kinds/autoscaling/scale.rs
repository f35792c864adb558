//! `autoscaling/v1` Scale.

use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Hooks, Kind, NameRule};
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.autoscaling.v1.Scale",
    names: NameRule::Any,
    hooks: Hooks { validate, ..Hooks::PLAIN },
    ..Kind::body("autoscaling", "v1", "Scale")
};

fn validate(object: &Value, errors: &mut Errors) {
    if let Some(replicas) = object.at("spec").int("replicas").filter(|replicas| *replicas < 0) {
        let path = Path::root("spec");
        errors.invalid(&path.child("replicas"), replicas, "must be greater than or equal to 0");
    }
}
