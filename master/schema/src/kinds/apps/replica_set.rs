//! `apps/v1` ReplicaSet.

use crate::kind::{Kind, Names, Subresource};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.apps.v1.ReplicaSet",
    short_names: &["rs"],
    categories: &["all"],
    subresources: &[
        Subresource {
            name: "scale",
            group: "autoscaling",
            version: "v1",
            kind: "Scale",
            verbs: &["get", "patch", "update"],
        },
        Subresource {
            name: "status",
            group: "apps",
            version: "v1",
            kind: "ReplicaSet",
            verbs: &["get", "patch", "update"],
        },
    ],
    generation: true,
    ..Kind::namespaced("apps", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "ReplicaSet", list: "ReplicaSetList", plural: "replicasets", singular: "replicaset" };
