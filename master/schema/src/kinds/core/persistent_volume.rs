//! `v1` PersistentVolume.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::claim_rules as rules;
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part, Subresource};
use crate::pod::update::differences;
use crate::pod::{node_labels, scheduling, volumes};
use crate::value::{Fields, object_in, put, same, set_if_unset};
use crate::warnings::Warnings;
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.PersistentVolume",
    short_names: &["pv"],
    subresources: &[Subresource::status("", "v1", "PersistentVolume")],
    returns_deleted_object: true,
    columns: COLUMNS,
    hooks: Hooks { default, row, prepare_create, validate, validate_update, warnings, ..Hooks::PLAIN },
    ..Kind::cluster("", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "PersistentVolume",
    list: "PersistentVolumeList",
    plural: "persistentvolumes",
    singular: "persistentvolume",
};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Capacity", "How large the volume is"),
    Column::text("Access Modes", "How it can be mounted"),
    Column::text("Reclaim Policy", "What becomes of it when its claim is gone"),
    Column::text("Status", "Phase of the volume"),
    Column::text("Claim", "The claim that has it"),
    Column::text("StorageClass", "The class it belongs to"),
    Column::text("VolumeAttributesClass", "The class of its attributes"),
    Column::text("Reason", "Why it is in its phase"),
    Column::AGE,
    Column::wide("VolumeMode", "Whether it is a file system"),
];

const RECLAIM: &[&str] = &["Delete", "Recycle", "Retain"];
/// What a volume can be, in upstream's order.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// Each volume that nothing mounts any longer, with its name in upstream's paths.
const NON_FUNCTIONAL: [(&str, &str, &str); 6] = [
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

fn default(object: &mut Value) {
    let Value::Object(volume) = object else { return };
    let status = object_in(volume, "status");
    set_if_unset(status, "phase", "Pending");
    let spec = object_in(volume, "spec");
    set_if_unset(spec, "persistentVolumeReclaimPolicy", "Retain");
    set_if_unset(spec, "volumeMode", "Filesystem");
}

fn prepare_create(object: &mut Value) {
    put(object, "status", json!({ "phase": "Pending" }));
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let (meta, spec, status) = (object.at("metadata"), object.at("spec"), object.at("status"));
    let claim = spec.at("claimRef");
    let claim = match claim {
        Value::Null => String::new(),
        claim => format!("{}/{}", claim.text("namespace"), claim.text("name")),
    };
    let phase = if meta.has("deletionTimestamp") { "Terminating" } else { status.text("phase") };
    vec![
        table::name(object),
        table::or(spec.at("capacity").text("storage"), "0"),
        rules::shown_modes(spec.list("accessModes")),
        spec.text("persistentVolumeReclaimPolicy").into(),
        phase.into(),
        claim.into(),
        rules::class(object).into(),
        rules::or_unset(spec.at("volumeAttributesClassName")),
        status.text("reason").into(),
        table::age(object, now),
        rules::or_unset(spec.at("volumeMode")),
    ]
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = object.at("spec");
    if spec.list("accessModes").is_empty() {
        errors.required(&path.child("accessModes"), "");
    }
    rules::access_modes(spec, &path, errors);
    capacity(spec, &path.child("capacity"), errors);
    let policy = spec.text("persistentVolumeReclaimPolicy");
    if !policy.is_empty() && !RECLAIM.contains(&policy) {
        errors.not_supported(&path.child("persistentVolumeReclaimPolicy"), policy, RECLAIM);
    }
    let affinity = spec.at("nodeAffinity");
    if !affinity.is_null() {
        let path = path.child("nodeAffinity");
        match affinity.at("required") {
            Value::Null => errors.required(&path.child("required"), "must specify required node constraints"),
            required => scheduling::node_selector(required, &path.child("required"), errors),
        }
    }
    source(spec, &path, errors);
    rules::class_name(spec.text("storageClassName"), &path.child("storageClassName"), errors);
    rules::volume_mode(spec, &path, errors);
    if let Some(class) = spec.at("volumeAttributesClassName").as_str() {
        let at = path.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.required(&at, "an empty string is disallowed");
        }
        rules::class_name(class, &at, errors);
        if !spec.has("csi") {
            errors.required(&path.child("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn capacity(spec: &Value, path: &Path, errors: &mut Errors) {
    let capacity = spec.at("capacity");
    let amounts: Vec<(&String, &Value)> = spec.entries("capacity").collect();
    if amounts.is_empty() {
        errors.required(path, "");
    }
    if !capacity.has("storage") || amounts.len() > 1 {
        errors.not_supported(path, capacity.clone(), &["storage"]);
    }
    for (name, amount) in amounts {
        let text = amount.as_str().unwrap_or_default();
        if !rules::is_positive(text) {
            errors.invalid(&path.key(name), text, rules::POSITIVE);
        }
    }
}

/// Exactly one; those that this control plane's nodes can mount are looked at closely.
fn source(spec: &Value, path: &Path, errors: &mut Errors) {
    let mut found = SOURCES.iter().filter(|name| spec.has(name));
    let Some(first) = found.next() else { return errors.required(path, "must specify a volume type") };
    let (source, at) = (spec.at(first), path.child(first));
    match *first {
        "hostPath" => volumes::host_path(source, &at, errors),
        "local" => {
            match source.text("path") {
                "" => errors.required(&at.child("path"), ""),
                folder => volumes::no_backsteps(folder, &at.child("path"), errors),
            }
            if !spec.has("nodeAffinity") {
                errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
            }
        }
        "nfs" => {
            for field in ["server", "path"].into_iter().filter(|field| source.text(field).is_empty()) {
                errors.required(&at.child(field), "");
            }
            if !source.text("path").is_empty() && !source.text("path").starts_with('/') {
                errors.invalid(&at.child("path"), source.text("path"), "must be an absolute path");
            }
        }
        "csi" => {
            for field in ["driver", "volumeHandle"].into_iter().filter(|field| source.text(field).is_empty()) {
                errors.required(&at.child(field), "");
            }
        }
        _ => {}
    }
    for more in found {
        errors.forbidden(&path.child(more), "may not specify more than 1 volume type");
    }
    let is_root = spec.at("hostPath").text("path").trim_end_matches('/').is_empty() && *first == "hostPath";
    if is_root && spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.forbidden(&path.child("persistentVolumeReclaimPolicy"), detail);
    }
}

fn validate_update(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    if part == Part::Status {
        return;
    }
    validate(object, errors);
    let (spec, before) = (object.at("spec"), old.at("spec"));
    let source = |spec: &Value| {
        let present = SOURCES.iter().filter(|name| spec.has(name));
        Value::Object(present.map(|name| ((*name).to_owned(), spec.at(name).clone())).collect())
    };
    let (source, source_before) = (source(spec), source(before));
    if !same(&source, &source_before) {
        let mut diff = String::new();
        differences(&source_before, &source, "", &mut diff);
        let path = Path::root("spec");
        let detail = format!("spec.persistentvolumesource is immutable after creation\n{diff}");
        errors.forbidden(&path.child("persistentvolumesource"), &detail);
    }
    meta::immutable(spec.at("volumeMode"), before.at("volumeMode"), &Path::root("volumeMode"), errors);
    if before.has("nodeAffinity") {
        meta::immutable(spec.at("nodeAffinity"), before.at("nodeAffinity"), &Path::root("nodeAffinity"), errors);
    }
    if before.has("volumeAttributesClassName") && !spec.has("volumeAttributesClassName") {
        let path = Path::root("spec");
        errors.forbidden(&path.child("volumeAttributesClassName"), "update from non-nil value to nil is forbidden");
    }
}

fn warnings(part: Part, object: &Value, _old: Option<&Value>, warnings: &mut Warnings) {
    if part != Part::Main {
        return;
    }
    let annotations = object.at("metadata").at("annotations");
    let metadata = Path::root("metadata");
    let at = metadata.child("annotations");
    for (key, text) in [(rules::CLASS, rules::USE_CLASS), (rules::MOUNT_OPTIONS, rules::USE_MOUNT_OPTIONS)] {
        if annotations.has(key) {
            warnings.of(&at.key(key), text);
        }
    }
    let (spec, path) = (object.at("spec"), Path::root("spec"));
    if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        warnings.of(
            &path.child("persistentVolumeReclaimPolicy"),
            "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
        );
    }
    let terms = path.child("nodeAffinity.required.nodeSelectorTerms");
    let required = spec.at("nodeAffinity").at("required");
    for (index, term) in required.list("nodeSelectorTerms").iter().enumerate() {
        node_labels::term(term, false, &terms.index(index), warnings);
    }
    for (_, shown, text) in NON_FUNCTIONAL.into_iter().filter(|(field, ..)| spec.has(field)) {
        warnings.of(&path.child(shown), text);
    }
}
