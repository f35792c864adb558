//! `rbac.authorization.k8s.io/v1` RoleBinding.

use super::shared;
use crate::kind::{Hooks, Kind, NameRule, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.rbac.v1.RoleBinding",
    names: NameRule::PathSegment,
    create_on_update: true,
    columns: shared::BINDING_COLUMNS,
    hooks: Hooks {
        default: shared::binding_default,
        row: shared::binding_row,
        validate: |object, errors| shared::binding_validate(object, true, errors),
        validate_update: |_, object, old, errors| {
            shared::binding_validate(object, true, errors);
            shared::role_ref_unchanged(object, old, errors);
        },
        ..Hooks::PLAIN
    },
    ..Kind::namespaced(shared::GROUP, "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "RoleBinding", list: "RoleBindingList", plural: "rolebindings", singular: "rolebinding" };
