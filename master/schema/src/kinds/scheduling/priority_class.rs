//! `scheduling.k8s.io/v1` PriorityClass.

use crate::kind::{Kind, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.scheduling.v1.PriorityClass",
    short_names: &["pc"],
    ..Kind::cluster("scheduling.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "PriorityClass", list: "PriorityClassList", plural: "priorityclasses", singular: "priorityclass" };
