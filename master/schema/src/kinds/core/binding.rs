//! `v1` Binding.

use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Hooks, Kind, NameRule, Names};
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Binding",
    verbs: &["create"],
    names: NameRule::Any,
    hooks: Hooks { validate, ..Hooks::PLAIN },
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Binding", list: "BindingList", plural: "bindings", singular: "binding" };

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("target");
    let target = object.at("target");
    if !matches!(target.text("kind"), "" | "Node") {
        errors.not_supported(&path.child("kind"), target.text("kind"), &["Node", "<empty>"]);
    }
    if target.text("name").is_empty() {
        errors.required(&path.child("name"), "");
    }
}
