//! `coordination.k8s.io/v1` Lease.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, Hooks, Kind, Names};
use crate::table;
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.coordination.v1.Lease",
    create_on_update: true,
    unconditional_update: false,
    columns: COLUMNS,
    hooks: Hooks { row, ..Hooks::PLAIN },
    ..Kind::namespaced("coordination.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Lease", list: "LeaseList", plural: "leases", singular: "lease" };

const COLUMNS: &[Column] = &[Column::NAME, Column::text("Holder", "Who holds the lease"), Column::AGE];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![table::name(object), object.at("spec").text("holderIdentity").into(), table::age(object, now)]
}
