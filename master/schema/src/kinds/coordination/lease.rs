//! `coordination.k8s.io/v1` Lease.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names};
use crate::table;
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.coordination.v1.Lease",
    create_on_update: true,
    unconditional_update: false,
    columns: COLUMNS,
    hooks: Hooks { row, validate, revalidate: true, ..Hooks::PLAIN },
    ..Kind::namespaced("coordination.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Lease", list: "LeaseList", plural: "leases", singular: "lease" };

const COLUMNS: &[Column] = &[Column::NAME, Column::text("Holder", "Who holds the lease"), Column::AGE];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![table::name(object), object.at("spec").text("holderIdentity").into(), table::age(object, now)]
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = object.at("spec");
    if let Some(seconds) = spec.int("leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        errors.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    if let Some(count) = spec.int("leaseTransitions").filter(|count| *count < 0) {
        errors.invalid(&path.child("leaseTransitions"), count, "must be greater than or equal to 0");
    }
}
