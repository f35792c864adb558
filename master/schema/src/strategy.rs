//! The steps of a write that all kinds share; upstream's `rest.BeforeCreate` and `rest.BeforeUpdate` without the parts
//! that need the server (names, uids, times, resource versions).

use serde_json::Value;

use crate::decode;
use crate::errors::{Errors, FieldError};
use crate::kind::{Kind, NameRule, Part, StatusOnCreate};
use crate::meta;
use crate::value::{Fields, object_in, put, same};

pub(crate) fn prepare_create(kind: &Kind, object: &mut Value) {
    if kind.has_status() && kind.status_on_create == StatusOnCreate::Reset {
        put(object, "status", decode::zero(kind, "status"));
    }
    set_generation(object, kind.generation.then_some(1));
    (kind.hooks.prepare_create)(object);
}

pub(crate) fn prepare_update(kind: &Kind, part: Part, object: &mut Value, old: &Value) {
    match part {
        Part::Main if kind.has_status() => put(object, "status", old.at("status").clone()),
        Part::Status if kind.custom.is_some() => take_only_status(object, old),
        Part::Status => keep_all_but_status(object, old),
        Part::Main | Part::Other(_) => {}
    }
    set_generation(object, old.at("metadata").int("generation"));
    (kind.hooks.prepare_update)(part, object, old);
    if kind.generation && part != Part::Status && part != Part::Other("binding") && changed(kind, object, old) {
        set_generation(object, Some(old.at("metadata").int("generation").unwrap_or(0) + 1));
    }
    keep_system_metadata(object, old);
}

/// Whether anything but `metadata` and `status` differs.
pub(crate) fn spec_changed(object: &Value, old: &Value) -> bool {
    let (Value::Object(new), Value::Object(old)) = (object, old) else { return true };
    new.keys()
        .chain(old.keys())
        .filter(|key| !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind"))
        .any(|key| !same(new.at(key), old.at(key)))
}

/// Whether a change counts in the generation: without a subresource of its own, so does one of the status.
fn changed(kind: &Kind, object: &Value, old: &Value) -> bool {
    spec_changed(object, old) || (!kind.has_status() && !same(object.at("status"), old.at("status")))
}

/// Of custom resources a status update takes nothing else, not even labels (`customresource/status_strategy.go`).
fn take_only_status(object: &mut Value, old: &Value) {
    let status = object.at("status").clone();
    let (owners, version) =
        (object.at("metadata").at("managedFields").clone(), object.at("metadata").at("resourceVersion").clone());
    *object = old.clone();
    put(object, "status", status);
    if let Some(metadata) = object.get_mut("metadata") {
        put(metadata, "managedFields", owners);
        put(metadata, "resourceVersion", version);
    }
}

fn keep_all_but_status(object: &mut Value, old: &Value) {
    let (Value::Object(new), Value::Object(old)) = (object, old) else { return };
    new.retain(|key, _| old.contains_key(key) || matches!(key.as_str(), "metadata" | "status"));
    for (key, value) in old.iter().filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status")) {
        new.insert(key.clone(), value.clone());
    }
}

fn set_generation(object: &mut Value, generation: Option<i64>) {
    let Value::Object(object) = object else { return };
    let meta = object_in(object, "metadata");
    match generation {
        Some(generation) if generation != 0 => meta.insert("generation".into(), generation.into()),
        _ => meta.remove("generation"),
    };
}

/// What no update can take away or change.
fn keep_system_metadata(object: &mut Value, old: &Value) {
    let Value::Object(object) = object else { return };
    let meta = object_in(object, "metadata");
    let before = old.at("metadata");
    for field in ["creationTimestamp", "deletionTimestamp"] {
        if before.has(field) {
            meta.insert(field.into(), before.at(field).clone());
        }
    }
    for field in ["uid", "deletionGracePeriodSeconds"] {
        if !meta.has(field) && before.has(field) {
            meta.insert(field.into(), before.at(field).clone());
        }
    }
}

pub(crate) fn validate_create(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    if kind.names != NameRule::Any {
        meta::create(kind, object, &mut errors);
    }
    (kind.hooks.validate)(object, &mut errors);
    if let Some(custom) = kind.custom {
        custom.validate(Part::Main, object, None, &mut errors);
    }
    errors.into_vec()
}

pub(crate) fn validate_update(kind: &Kind, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    if kind.names != NameRule::Any {
        meta::update(kind, object, old, &mut errors);
    }
    if kind.hooks.revalidate && part == Part::Main {
        (kind.hooks.validate)(object, &mut errors);
    }
    (kind.hooks.validate_update)(part, object, old, &mut errors);
    if let Some(custom) = kind.custom {
        custom.validate(part, object, Some(old), &mut errors);
    }
    errors.into_vec()
}
