//! `resource.k8s.io/v1` ResourceSlice.

use jiff::Timestamp;
use serde_json::Value;

use super::device_rules::{counter_name, counters, device, node_name, only_true, set_fields};
use super::rules::{by_name, each, pool_name, unique};
use crate::errors::{Errors, Path, quote};
use crate::kind::{Column, FieldLabel, Hooks, Kind, Names, Part};
use crate::kinds::storage::csi_node::driver_name;
use crate::pod::scheduling::node_selector;
use crate::value::{Fields, Object, object_in, objects_in, set_if_unset};
use crate::warnings::Warnings;
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.resource.v1.ResourceSlice",
    generation: true,
    fields: &[FieldLabel::text("spec.nodeName", "/spec/nodeName"), FieldLabel::text("spec.driver", "/spec/driver")],
    returns_deleted_object: true,
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, validate_update, revalidate: true, warnings, ..Hooks::PLAIN },
    ..Kind::cluster("resource.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "ResourceSlice", list: "ResourceSliceList", plural: "resourceslices", singular: "resourceslice" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Node", "The node that its devices are on"),
    Column::text("Driver", "Whose devices they are"),
    Column::text("Pool", "The pool that it is a part of"),
    Column::AGE,
];

const MOST_DEVICES: usize = 128;
/// With taints, counters or lists in attributes.
const MOST_COSTLY_DEVICES: usize = 64;
const MOST_COUNTER_SETS: usize = 8;
const CHOICES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
const EXACTLY_ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    vec![
        table::name(object),
        spec.text("nodeName").into(),
        spec.text("driver").into(),
        spec.at("pool").text("name").into(),
        table::age(object, now),
    ]
}

fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    for device in objects_in(object_in(object, "spec"), "devices") {
        let mappings = device.get_mut("nodeAllocatableResourceMappings").and_then(Value::as_object_mut);
        let each = mappings.into_iter().flat_map(Object::values_mut).filter_map(Value::as_object_mut);
        each.for_each(|mapping| set_if_unset(mapping, "allocationMultiplier", "1"));
    }
}

fn validate(object: &Value, errors: &mut Errors) {
    let (spec, path) = (object.at("spec"), Path::root("spec"));
    driver_name(spec.text("driver"), &path.child("driver"), errors);
    pool(spec.at("pool"), &path.child("pool"), errors);
    nodes(spec, &path, errors);
    if spec.has("sharedCounters") && spec.has("devices") {
        errors.invalid(&path, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let costly = |device: &Value| {
        let lists = ["bools", "ints", "strings", "versions"];
        !device.list("taints").is_empty()
            || !device.list("consumesCounters").is_empty()
            || device.entries("attributes").any(|(_, attribute)| lists.iter().any(|field| attribute.has(field)))
    };
    let most = if spec.list("devices").iter().any(costly) { MOST_COSTLY_DEVICES } else { MOST_DEVICES };
    let chosen_singly = spec.flag("perDeviceNodeSelection");
    each(spec, "devices", most, &path, errors, |one, path, errors| device(one, chosen_singly, path, errors));
    unique(spec, "devices", &path, errors, by_name);
    each(spec, "sharedCounters", MOST_COUNTER_SETS, &path, errors, |set, path, errors| {
        counter_name(set.text("name"), &path.child("name"), errors);
        counters(set, path, errors);
    });
    unique(spec, "sharedCounters", &path, errors, by_name);
}

fn pool(pool: &Value, path: &Path<'_>, errors: &mut Errors) {
    pool_name(pool.text("name"), &path.child("name"), errors);
    let (count, generation) = (pool.int("resourceSliceCount").unwrap_or(0), pool.int("generation").unwrap_or(0));
    if count <= 0 {
        errors.invalid(&path.child("resourceSliceCount"), count, "must be greater than zero");
    }
    if generation < 0 {
        errors.invalid(&path.child("generation"), generation, "must be greater than or equal to zero");
    }
}

/// Which nodes can use the devices.
fn nodes(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(name) = spec.at("nodeName").as_str() {
        node_name(name, "must be either unset or set to a non-empty string", &path.child("nodeName"), errors);
    }
    let (selector, place) = (spec.at("nodeSelector"), path.child("nodeSelector"));
    if !selector.is_null() {
        node_selector(selector, &place, errors);
        let terms = selector.list("nodeSelectorTerms");
        if terms.len() != 1 {
            let shown = selector.at("nodeSelectorTerms").clone();
            errors.invalid(&place.child("nodeSelectorTerms"), shown, "must have exactly one node selector term");
        }
    }
    for field in ["allNodes", "perDeviceNodeSelection"] {
        only_true(spec, field, path, errors);
    }
    let set = set_fields(spec, &CHOICES);
    match set.len() {
        0 => errors.required(path, EXACTLY_ONE),
        1 => {}
        _ => {
            let detail = format!("{EXACTLY_ONE}, but multiple fields are set");
            errors.invalid(path, format!("{{{}}}", set.join(", ")), &detail);
        }
    }
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before, path) = (object.at("spec"), old.at("spec"), Path::root("spec"));
    let pool = path.child("pool");
    meta::immutable(spec.at("pool").at("name"), before.at("pool").at("name"), &pool.child("name"), errors);
    for field in ["driver", "nodeName"] {
        meta::immutable(spec.at(field), before.at(field), &path.child(field), errors);
    }
}

fn warnings(_part: Part, object: &Value, _old: Option<&Value>, warnings: &mut Warnings) {
    let driver = object.at("spec").text("driver");
    if driver.contains(char::is_uppercase) {
        let driver = quote(driver);
        warnings.say(format!("spec.driver: driver names should be lowercase; {driver} contains uppercase characters"));
    }
}
