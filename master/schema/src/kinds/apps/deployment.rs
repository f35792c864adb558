//! `apps/v1` Deployment.

use crate::kind::{Kind, Names, Subresource};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.apps.v1.Deployment",
    short_names: &["deploy"],
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
            kind: "Deployment",
            verbs: &["get", "patch", "update"],
        },
    ],
    generation: true,
    ..Kind::namespaced("apps", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "Deployment", list: "DeploymentList", plural: "deployments", singular: "deployment" };
