//! `v1` ServiceAccount.

use crate::kind::{Kind, Names, Subresource};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.ServiceAccount",
    short_names: &["sa"],
    subresources: &[Subresource {
        name: "token",
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
        verbs: &["create"],
    }],
    returns_deleted_object: true,
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "ServiceAccount", list: "ServiceAccountList", plural: "serviceaccounts", singular: "serviceaccount" };
