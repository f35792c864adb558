//! `v1` Namespace.

use crate::kind::{Kind, NameRule, Names, Subresource};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Namespace",
    short_names: &["ns"],
    subresources: &[
        Subresource { name: "finalize", group: "", version: "v1", kind: "Namespace", verbs: &["update"] },
        Subresource { name: "status", group: "", version: "v1", kind: "Namespace", verbs: &["get", "patch", "update"] },
    ],
    names: NameRule::Label,
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    ..Kind::cluster("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Namespace", list: "NamespaceList", plural: "namespaces", singular: "namespace" };
