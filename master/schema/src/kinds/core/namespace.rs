//! `v1` Namespace.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, FieldLabel, Hooks, Kind, NameRule, Names, Subresource};
use crate::table;
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Namespace",
    short_names: &["ns"],
    subresources: &[
        Subresource { name: "finalize", group: "", version: "v1", kind: "Namespace", verbs: &["update"] },
        Subresource { name: "status", group: "", version: "v1", kind: "Namespace", verbs: &["get", "patch", "update"] },
    ],
    names: NameRule::Label,
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    fields: &[FieldLabel::text("status.phase", "/status/phase"), FieldLabel::text("name", "/metadata/name")],
    columns: COLUMNS,
    hooks: Hooks { row, ..Hooks::PLAIN },
    ..Kind::cluster("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Namespace", list: "NamespaceList", plural: "namespaces", singular: "namespace" };

const COLUMNS: &[Column] = &[Column::NAME, Column::text("Status", "Phase of the namespace"), Column::AGE];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![table::name(object), object.at("status").text("phase").into(), table::age(object, now)]
}
