//! `v1` Pod.

use crate::kind::{Kind, Names, Subresource};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        Subresource { name: "attach", group: "", version: "v1", kind: "PodAttachOptions", verbs: &["create", "get"] },
        Subresource { name: "binding", group: "", version: "v1", kind: "Binding", verbs: &["create"] },
        Subresource {
            name: "ephemeralcontainers",
            group: "",
            version: "v1",
            kind: "Pod",
            verbs: &["get", "patch", "update"],
        },
        Subresource { name: "eviction", group: "policy", version: "v1", kind: "Eviction", verbs: &["create"] },
        Subresource { name: "exec", group: "", version: "v1", kind: "PodExecOptions", verbs: &["create", "get"] },
        Subresource { name: "log", group: "", version: "v1", kind: "Pod", verbs: &["get"] },
        Subresource {
            name: "portforward",
            group: "",
            version: "v1",
            kind: "PodPortForwardOptions",
            verbs: &["create", "get"],
        },
        Subresource {
            name: "proxy",
            group: "",
            version: "v1",
            kind: "PodProxyOptions",
            verbs: &["create", "delete", "get", "patch", "update"],
        },
        Subresource { name: "resize", group: "", version: "v1", kind: "Pod", verbs: &["get", "patch", "update"] },
        Subresource { name: "status", group: "", version: "v1", kind: "Pod", verbs: &["get", "patch", "update"] },
    ],
    generation: true,
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Pod", list: "PodList", plural: "pods", singular: "pod" };
