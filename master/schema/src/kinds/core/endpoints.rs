//! `v1` Endpoints.

use crate::kind::{Kind, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Endpoints",
    short_names: &["ep"],
    create_on_update: true,
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Endpoints", list: "EndpointsList", plural: "endpoints", singular: "endpoints" };
