//! `coordination.k8s.io/v1` Lease.

use crate::kind::{Kind, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.coordination.v1.Lease",
    create_on_update: true,
    unconditional_update: false,
    ..Kind::namespaced("coordination.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Lease", list: "LeaseList", plural: "leases", singular: "lease" };
