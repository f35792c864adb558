//! `storage.k8s.io/v1` VolumeAttachment.

use jiff::Timestamp;
use serde_json::Value;

use super::csi_node::driver_name;
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part, Subresource};
use crate::names::dns_subdomain;
use crate::value::Fields;
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.storage.v1.VolumeAttachment",
    subresources: &[Subresource::status("storage.k8s.io", "v1", "VolumeAttachment")],
    returns_deleted_object: true,
    columns: COLUMNS,
    hooks: Hooks { row, validate, validate_update, ..Hooks::PLAIN },
    ..Kind::cluster("storage.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "VolumeAttachment",
    list: "VolumeAttachmentList",
    plural: "volumeattachments",
    singular: "volumeattachment",
};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column { format: "name", ..Column::text("Attacher", "The driver that attaches") },
    Column::text("PV", "The volume"),
    Column::text("Node", "The node that it is attached to"),
    Column { kind: "boolean", ..Column::text("Attached", "Whether it is attached") },
    Column::AGE,
];

const METADATA: usize = 256 * 1024;
const MESSAGE: usize = 1_024;

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    vec![
        table::name(object),
        spec.text("attacher").into(),
        spec.at("source").text("persistentVolumeName").into(),
        spec.text("nodeName").into(),
        object.at("status").flag("attached").into(),
        table::age(object, now),
    ]
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = object.at("spec");
    driver_name(spec.text("attacher"), &path.child("attacher"), errors);
    let (source, at) = (spec.at("source"), path.child("source"));
    let exactly_one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (source.has("inlineVolumeSpec"), source.at("persistentVolumeName").as_str()) {
        (false, None) => errors.required(&at, exactly_one),
        (true, Some(_)) => errors.forbidden(&at, exactly_one),
        (false, Some("")) => {
            errors.required(&at.child("persistentVolumeName"), "must specify non empty persistentVolumeName");
        }
        (false, Some(name)) => {
            let path = Path::root("spec.source.persistentVolumeName");
            dns_subdomain(name).iter().for_each(|text| errors.invalid(&path, name, text));
        }
        (true, None) => {}
    }
    let node = spec.text("nodeName");
    dns_subdomain(node).iter().for_each(|text| errors.invalid(&path.child("nodeName"), node, text));
    status(object.at("status"), errors);
}

fn status(status: &Value, errors: &mut Errors) {
    let path = Path::root("status");
    let entries = status.entries("attachmentMetadata");
    let size: usize = entries.map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
    if size > METADATA {
        errors.too_long(&path.child("attachmentMetadata"), METADATA);
    }
    for field in ["attachError", "detachError"] {
        if status.at(field).text("message").len() > MESSAGE {
            errors.too_long(&path.child(field).child("message"), METADATA);
        }
    }
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    validate(object, errors);
    meta::immutable(object.at("spec"), old.at("spec"), &Path::root("spec"), errors);
}
