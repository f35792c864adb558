//! `v1` Binding.

use crate::kind::{Kind, NameRule, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Binding",
    verbs: &["create"],
    names: NameRule::Any,
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Binding", list: "BindingList", plural: "bindings", singular: "binding" };
