//! `v1` Service.

use crate::kind::{Kind, NameRule, Names, Subresource};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[
        Subresource {
            name: "proxy",
            group: "",
            version: "v1",
            kind: "ServiceProxyOptions",
            verbs: &["create", "delete", "get", "patch", "update"],
        },
        Subresource { name: "status", group: "", version: "v1", kind: "Service", verbs: &["get", "patch", "update"] },
    ],
    names: NameRule::Label1035,
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Service", list: "ServiceList", plural: "services", singular: "service" };
