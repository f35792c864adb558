//! `v1` Secret.

use crate::kind::{Kind, Names};

pub static KIND: Kind = Kind { definition: "io.k8s.api.core.v1.Secret", ..Kind::namespaced("", "v1", NAMES) };

const NAMES: Names = Names { kind: "Secret", list: "SecretList", plural: "secrets", singular: "secret" };
