//! `rbac.authorization.k8s.io/v1` Role.

use super::shared;
use crate::kind::{Hooks, Kind, NameRule, Names};
use crate::table;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.rbac.v1.Role",
    names: NameRule::PathSegment,
    create_on_update: true,
    columns: table::NAME_AND_CREATED,
    hooks: Hooks {
        row: table::name_and_created,
        validate: |object, errors| shared::role_validate(object, true, errors),
        revalidate: true,
        ..Hooks::PLAIN
    },
    ..Kind::namespaced(shared::GROUP, "v1", NAMES)
};

const NAMES: Names = Names { kind: "Role", list: "RoleList", plural: "roles", singular: "role" };
