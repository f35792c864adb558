//! `rbac.authorization.k8s.io/v1` ClusterRoleBinding.

use crate::kind::{Kind, NameRule, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.rbac.v1.ClusterRoleBinding",
    names: NameRule::PathSegment,
    create_on_update: true,
    ..Kind::cluster("rbac.authorization.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "ClusterRoleBinding",
    list: "ClusterRoleBindingList",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
};
