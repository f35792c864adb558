//! `resource.k8s.io/v1` ResourceClaim: kept and validated. No driver allocates devices here, so pods that name one wait.

use jiff::Timestamp;
use serde_json::Value;

use super::claim_rules;
use super::rules::device_id;
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part, Subresource};
use crate::meta;
use crate::table;
use crate::value::{Fields, object_in};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.resource.v1.ResourceClaim",
    subresources: &[Subresource::status("resource.k8s.io", "v1", "ResourceClaim")],
    returns_deleted_object: true,
    columns: COLUMNS,
    hooks: Hooks { default, prepare_update, row, validate, validate_update, ..Hooks::PLAIN },
    ..Kind::namespaced("resource.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "ResourceClaim", list: "ResourceClaimList", plural: "resourceclaims", singular: "resourceclaim" };

const COLUMNS: &[Column] = &[Column::NAME, Column::text("State", "Whether it has its devices"), Column::AGE];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = object.at("status");
    let (deleted, allocated) = (object.at("metadata").has("deletionTimestamp"), status.has("allocation"));
    let states = [
        (deleted, "deleted"),
        (!deleted && !allocated, "pending"),
        (allocated, "allocated"),
        (allocated && !status.list("reservedFor").is_empty(), "reserved"),
    ];
    let states: Vec<&str> = states.into_iter().filter_map(|(is, state)| is.then_some(state)).collect();
    vec![table::name(object), states.join(",").into(), table::age(object, now)]
}

fn default(object: &mut Value) {
    if let Value::Object(object) = object {
        claim_rules::default(object_in(object, "spec"));
    }
}

/// What drivers said of devices goes with the devices.
fn prepare_update(part: Part, object: &mut Value, old: &Value) {
    if part != Part::Status {
        return;
    }
    let ids = |claim: &Value| -> Vec<[String; 4]> {
        let results = claim.at("status").at("allocation").at("devices").list("results");
        results.iter().map(|result| device_id(result).map(str::to_owned)).collect()
    };
    let (before, now) = (ids(old), ids(object));
    let Some(Value::Array(devices)) = object.get_mut("status").and_then(|status| status.get_mut("devices")) else {
        return;
    };
    devices.retain(|device| {
        let id = device_id(device).map(str::to_owned);
        now.contains(&id) || !before.contains(&id)
    });
}

fn validate(object: &Value, errors: &mut Errors) {
    claim_rules::spec(object.at("spec"), &Path::root("spec"), errors);
}

fn validate_update(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    if part == Part::Status {
        return claim_rules::status(object, old, errors);
    }
    meta::immutable(object.at("spec"), old.at("spec"), &Path::root("spec"), errors);
}
