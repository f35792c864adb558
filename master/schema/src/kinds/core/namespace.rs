//! `v1` Namespace.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kind::{Column, FieldLabel, Hooks, Kind, NameRule, Names, Part, Subresource};
use crate::table;
use crate::value::{Fields, object_in, put};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Namespace",
    short_names: &["ns"],
    subresources: &[
        Subresource { name: "finalize", group: "", version: "v1", kind: "Namespace", verbs: &["update"] },
        Subresource::status("", "v1", "Namespace"),
    ],
    names: NameRule::Label,
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    fields: &[FieldLabel::text("status.phase", "/status/phase"), FieldLabel::text("name", "/metadata/name")],
    returns_deleted_object: true,
    columns: COLUMNS,
    hooks: Hooks { row, default, prepare_create, prepare_update, ..Hooks::PLAIN },
    ..Kind::cluster("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Namespace", list: "NamespaceList", plural: "namespaces", singular: "namespace" };

const COLUMNS: &[Column] = &[Column::NAME, Column::text("Status", "Phase of the namespace"), Column::AGE];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![table::name(object), object.at("status").text("phase").into(), table::age(object, now)]
}

/// Every namespace carries its name as a label, and is Active until it is deleted.
fn default(object: &mut Value) {
    let Value::Object(namespace) = object else { return };
    let meta = object_in(namespace, "metadata");
    let name = meta.text("name").to_string();
    if !name.is_empty() {
        object_in(meta, "labels").insert("kubernetes.io/metadata.name".into(), name.into());
    }
    let status = object_in(namespace, "status");
    if status.text("phase").is_empty() {
        status.insert("phase".into(), "Active".into());
    }
}

/// Upstream's strategy: the finalizer `kubernetes` keeps a namespace until it is empty.
fn prepare_create(object: &mut Value) {
    put(object, "status", json!({ "phase": "Active" }));
    default(object);
    let Value::Object(namespace) = object else { return };
    let spec = object_in(namespace, "spec");
    let mut finalizers = spec.list("finalizers").to_vec();
    if !finalizers.iter().any(|name| name == "kubernetes") {
        finalizers.push("kubernetes".into());
    }
    spec.insert("finalizers".into(), finalizers.into());
}

/// Only `…/finalize` changes the finalizers of the spec.
fn prepare_update(part: Part, object: &mut Value, old: &Value) {
    match part {
        Part::Main => {
            let finalizers = old.at("spec").at("finalizers").clone();
            if let Value::Object(namespace) = object {
                object_in(namespace, "spec");
            }
            if let Some(spec) = object.get_mut("spec") {
                put(spec, "finalizers", finalizers);
            }
        }
        Part::Other("finalize") => put(object, "status", old.at("status").clone()),
        Part::Status | Part::Other(_) => {}
    }
}
