//! `v1` PersistentVolumeClaim.

use api::quantity::Quantity;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::claim_rules as rules;
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part, Subresource};
use crate::pod::update::differences;
use crate::value::{Fields, put, same};
use crate::warnings::Warnings;
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.PersistentVolumeClaim",
    short_names: &["pvc"],
    subresources: &[Subresource::status("", "v1", "PersistentVolumeClaim")],
    returns_deleted_object: true,
    columns: COLUMNS,
    hooks: Hooks { row, prepare_create, prepare_update, validate, validate_update, warnings, ..Hooks::PLAIN },
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "PersistentVolumeClaim",
    list: "PersistentVolumeClaimList",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Status", "Phase of the claim"),
    Column::text("Volume", "The volume that it has"),
    Column::text("Capacity", "How large that is"),
    Column::text("Access Modes", "How it can be mounted"),
    Column::text("StorageClass", "The class that was asked for"),
    Column::text("VolumeAttributesClass", "The class of its attributes"),
    Column::AGE,
    Column::wide("VolumeMode", "Whether it is a file system"),
];

fn prepare_create(object: &mut Value) {
    put(object, "status", json!({ "phase": "Pending" }));
    if let Some(spec) = object.get_mut("spec") {
        rules::normalize(spec);
    }
}

fn prepare_update(part: Part, object: &mut Value, _: &Value) {
    if let Some(spec) = object.get_mut("spec").filter(|_| part == Part::Main) {
        rules::normalize(spec);
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let (meta, spec, status) = (object.at("metadata"), object.at("spec"), object.at("status"));
    let phase = if meta.has("deletionTimestamp") { "Terminating" } else { status.text("phase") };
    let bound = !spec.text("volumeName").is_empty();
    let capacity = if bound { table::or(status.at("capacity").text("storage"), "0") } else { "".into() };
    let modes = if bound { rules::shown_modes(status.list("accessModes")) } else { "".into() };
    vec![
        table::name(object),
        phase.into(),
        spec.text("volumeName").into(),
        capacity,
        modes,
        rules::class(object).into(),
        rules::or_unset(spec.at("volumeAttributesClassName")),
        table::age(object, now),
        rules::or_unset(spec.at("volumeMode")),
    ]
}

fn validate(object: &Value, errors: &mut Errors) {
    rules::claim_spec(object.at("spec"), &Path::root("spec"), errors);
}

fn validate_update(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    if part == Part::Status {
        return status(object, errors);
    }
    validate(object, errors);
    let (spec, before) = (object.at("spec"), old.at("spec"));
    let annotation = |object: &Value| object.at("metadata").at("annotations").at(rules::CLASS).clone();
    if annotation(object) != annotation(old) {
        let path = Path::root("metadata");
        let path = path.child("annotations");
        errors.invalid(&path.key(rules::CLASS), annotation(object), meta::IMMUTABLE);
    }
    let (allowed, before_allowed) = comparable(object, old);
    if !same(&allowed, &before_allowed) {
        let mut diff = String::new();
        differences(&before_allowed, &allowed, "", &mut diff);
        let detail = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{diff}"
        );
        errors.forbidden(&Path::root("spec"), &detail);
    }
    size(object, old, errors);
    meta::immutable(spec.at("volumeMode"), before.at("volumeMode"), &Path::root("volumeMode"), errors);
    attributes_class(object, old, errors);
}

/// The two specs with everything that may change made equal.
fn comparable(object: &Value, old: &Value) -> (Value, Value) {
    let (mut new, mut before) = (object.at("spec").clone(), old.at("spec").clone());
    if before.text("volumeName").is_empty() {
        put(&mut before, "volumeName", new.at("volumeName").clone());
    }
    // A class may be given to a claim that has none yet.
    if !before.has("storageClassName") && old.at("metadata").at("annotations").text(rules::CLASS).is_empty() {
        put(&mut new, "storageClassName", Value::Null);
    }
    if object.at("status").text("phase") == "Bound" {
        if let Some(requests) = new.pointer_mut("/resources/requests") {
            put(requests, "storage", before.at("resources").at("requests").at("storage").clone());
        }
        put(&mut new, "volumeAttributesClassName", before.at("volumeAttributesClassName").clone());
    }
    (new, before)
}

/// A claim never shrinks below what it has.
fn size(object: &Value, old: &Value, errors: &mut Errors) {
    let amount = |value: &Value| value.as_str().and_then(|text| text.parse::<Quantity>().ok()).unwrap_or_default();
    let asked = |object: &Value| amount(object.at("spec").at("resources").at("requests").at("storage"));
    let has = amount(old.at("status").at("capacity").at("storage"));
    if asked(object) < asked(old) && asked(object) <= has {
        let path = Path::root("spec");
        let path = path.child("resources");
        let path = path.child("requests");
        errors.forbidden(&path.child("storage"), "field can not be less than status.capacity");
    }
}

fn attributes_class(object: &Value, old: &Value, errors: &mut Errors) {
    let field = "volumeAttributesClassName";
    let (new, before) = (object.at("spec").at(field), old.at("spec").at(field));
    if same(new, before) || !old.at("status").has("currentVolumeAttributesClassName") {
        return;
    }
    let what = match new.as_str() {
        None => "nil",
        Some("") => "empty string",
        Some(_) => return,
    };
    let detail = format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
    let path = Path::root("spec");
    errors.forbidden(&path.child(field), &detail);
}

fn status(object: &Value, errors: &mut Errors) {
    if object.at("spec").list("accessModes").is_empty() {
        let path = Path::root("Spec");
        errors.required(&path.child("accessModes"), "");
    }
    let path = Path::root("status");
    let path = path.child("capacity");
    for (name, amount) in object.at("status").entries("capacity") {
        if amount.as_str().unwrap_or_default().starts_with('-') {
            errors.invalid(&path.key(name), amount.clone(), "must be a valid resource quantity");
        }
    }
}

fn warnings(part: Part, object: &Value, _old: Option<&Value>, warnings: &mut Warnings) {
    if part != Part::Main {
        return;
    }
    if object.at("metadata").at("annotations").has(rules::CLASS) {
        let metadata = Path::root("metadata");
        warnings.of(&metadata.child("annotations").key(rules::CLASS), rules::USE_CLASS);
    }
    rules::warn_of_spec(object.at("spec"), &Path::root("spec"), warnings);
}
