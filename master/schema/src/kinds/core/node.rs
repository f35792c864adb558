//! `v1` Node.

use crate::kind::{Kind, Names, StatusOnCreate, Subresource};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Node",
    short_names: &["no"],
    subresources: &[
        Subresource {
            name: "proxy",
            group: "",
            version: "v1",
            kind: "NodeProxyOptions",
            verbs: &["create", "delete", "get", "patch", "update"],
        },
        Subresource { name: "status", group: "", version: "v1", kind: "Node", verbs: &["get", "patch", "update"] },
    ],
    status_on_create: StatusOnCreate::Keep,
    ..Kind::cluster("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Node", list: "NodeList", plural: "nodes", singular: "node" };
