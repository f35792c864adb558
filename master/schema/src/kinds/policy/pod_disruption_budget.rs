//! `policy/v1` PodDisruptionBudget.

use crate::kind::{Kind, Names, Subresource};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.policy.v1.PodDisruptionBudget",
    short_names: &["pdb"],
    subresources: &[Subresource {
        name: "status",
        group: "policy",
        version: "v1",
        kind: "PodDisruptionBudget",
        verbs: &["get", "patch", "update"],
    }],
    generation: true,
    unconditional_update: false,
    ..Kind::namespaced("policy", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "PodDisruptionBudget",
    list: "PodDisruptionBudgetList",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
};
