//! `v1` ConfigMap.

use crate::kind::{Kind, Names};

pub static KIND: Kind =
    Kind { definition: "io.k8s.api.core.v1.ConfigMap", short_names: &["cm"], ..Kind::namespaced("", "v1", NAMES) };

const NAMES: Names = Names { kind: "ConfigMap", list: "ConfigMapList", plural: "configmaps", singular: "configmap" };
