//! `discovery.k8s.io/v1` EndpointSlice.

use crate::kind::{Kind, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.discovery.v1.EndpointSlice",
    generation: true,
    ..Kind::namespaced("discovery.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "EndpointSlice", list: "EndpointSliceList", plural: "endpointslices", singular: "endpointslice" };
