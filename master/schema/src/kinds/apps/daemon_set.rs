//! `apps/v1` DaemonSet.

use crate::kind::{Kind, Names, Subresource};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.apps.v1.DaemonSet",
    short_names: &["ds"],
    categories: &["all"],
    subresources: &[Subresource {
        name: "status",
        group: "apps",
        version: "v1",
        kind: "DaemonSet",
        verbs: &["get", "patch", "update"],
    }],
    generation: true,
    ..Kind::namespaced("apps", "v1", NAMES)
};

const NAMES: Names = Names { kind: "DaemonSet", list: "DaemonSetList", plural: "daemonsets", singular: "daemonset" };
