//! `authentication.k8s.io/v1` TokenRequest.

use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Hooks, Kind, NameRule};
use crate::value::{Fields, object_in, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.authentication.v1.TokenRequest",
    names: NameRule::Any,
    hooks: Hooks { default, validate, ..Hooks::PLAIN },
    ..Kind::body("authentication.k8s.io", "v1", "TokenRequest")
};

fn default(object: &mut Value) {
    if let Value::Object(object) = object {
        set_if_unset(object_in(object, "spec"), "expirationSeconds", 3_600);
    }
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let path = path.child("expirationSeconds");
    let seconds = object.at("spec").int("expirationSeconds").unwrap_or(0);
    if seconds < 600 {
        errors.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        errors.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
    }
}
