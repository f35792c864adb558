//! `storage.k8s.io/v1` CSIDriver.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part};
use crate::value::{Fields, object_in, same, set_if_unset};
use crate::warnings::Warnings;
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.storage.v1.CSIDriver",
    generation: true,
    returns_deleted_object: true,
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, validate_update, warnings, ..Hooks::PLAIN },
    ..Kind::cluster("storage.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names { kind: "CSIDriver", list: "CSIDriverList", plural: "csidrivers", singular: "csidriver" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column {
        kind: "boolean",
        ..Column::text("AttachRequired", "Whether volumes are attached before they are mounted")
    },
    Column { kind: "boolean", ..Column::text("PodInfoOnMount", "Whether the driver is told of the pod") },
    Column { kind: "boolean", ..Column::text("StorageCapacity", "Whether the scheduler asks for room") },
    Column::text("TokenRequests", "Audiences of the tokens that the driver gets"),
    Column { kind: "boolean", ..Column::text("RequiresRepublish", "Whether the driver is called again and again") },
    Column::text("Modes", "Lifecycles of its volumes"),
    Column::AGE,
];

const FS_GROUP: &[&str] = &["File", "None", "ReadWriteOnceWithFSType"];
const LIFECYCLES: &[&str] = &["Persistent", "Ephemeral"];

fn default(object: &mut Value) {
    let Value::Object(driver) = object else { return };
    let spec = object_in(driver, "spec");
    set_if_unset(spec, "attachRequired", true);
    for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        set_if_unset(spec, field, false);
    }
    set_if_unset(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.list("volumeLifecycleModes").is_empty() {
        spec.insert("volumeLifecycleModes".into(), json!(["Persistent"]));
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    let texts = |list: &[Value], field: &str| -> Vec<String> {
        let text =
            |item: &Value| if field.is_empty() { item.as_str() } else { item.at(field).as_str() }.map(str::to_owned);
        list.iter().filter_map(text).collect()
    };
    let audiences = match spec.at("tokenRequests") {
        Value::Null => "<unset>".into(),
        _ => texts(spec.list("tokenRequests"), "audience").join(",").into(),
    };
    vec![
        table::name(object),
        spec.at("attachRequired").as_bool().unwrap_or(true).into(),
        spec.flag("podInfoOnMount").into(),
        spec.flag("storageCapacity").into(),
        audiences,
        spec.flag("requiresRepublish").into(),
        table::or_none(&texts(spec.list("volumeLifecycleModes"), "").join(",")),
        table::age(object, now),
    ]
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = object.at("spec");
    for (field, shown) in [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ] {
        if !spec.has(field) {
            errors.required(&path.child(shown), "");
        }
    }
    if let Some(policy) = spec.at("fsGroupPolicy").as_str().filter(|policy| !FS_GROUP.contains(policy)) {
        errors.not_supported(&path.child("fsGroupPolicy"), policy, FS_GROUP);
    }
    token_requests(spec.list("tokenRequests"), &path.child("tokenRequests"), errors);
    for mode in spec.list("volumeLifecycleModes").iter().filter_map(Value::as_str) {
        if !LIFECYCLES.contains(&mode) {
            errors.not_supported(&path.child("volumeLifecycleModes"), mode, LIFECYCLES);
        }
    }
    if let Some(period) = spec.int("nodeAllocatableUpdatePeriodSeconds").filter(|period| *period < 10) {
        let path = path.child("nodeAllocatableUpdatePeriodSeconds");
        errors.invalid(&path, period, "must be greater than or equal to 10 seconds");
    }
}

fn token_requests(requests: &[Value], path: &Path, errors: &mut Errors) {
    let mut audiences = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let path = path.index(index);
        let audience = request.text("audience");
        if audiences.contains(&audience) {
            errors.duplicate(&path.child("audience"), audience);
            continue;
        }
        audiences.push(audience);
        let Some(seconds) = request.int("expirationSeconds") else { continue };
        let path = path.child("expirationSeconds");
        if seconds < 600 {
            errors.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > 1 << 32 {
            errors.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
        }
    }
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    validate(object, errors);
    let (spec, before) = (object.at("spec"), old.at("spec"));
    let path = Path::root("spec");
    meta::immutable(spec.at("attachRequired"), before.at("attachRequired"), &path.child("attachedRequired"), errors);
    let field = "volumeLifecycleModes";
    meta::immutable(spec.at(field), before.at(field), &path.child(field), errors);
}

fn warnings(_part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    let (spec, field) = (object.at("spec"), "tokenRequests");
    let is_new = old.is_none_or(|old| !same(old.at("spec").at(field), spec.at(field)));
    if is_new && !spec.list(field).is_empty() && !spec.has("serviceAccountTokenInSecrets") {
        warnings.say(
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible \
             logging of tokens in volume attributes",
        );
    }
}
