//! `rbac.authorization.k8s.io/v1` Role.

use crate::kind::{Kind, NameRule, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.rbac.v1.Role",
    names: NameRule::PathSegment,
    create_on_update: true,
    ..Kind::namespaced("rbac.authorization.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Role", list: "RoleList", plural: "roles", singular: "role" };
