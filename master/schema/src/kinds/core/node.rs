//! `v1` Node.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, FieldLabel, Hooks, Kind, Names, StatusOnCreate, Subresource};
use crate::table::{self, or};
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Node",
    short_names: &["no"],
    subresources: &[
        Subresource {
            name: "proxy",
            group: "",
            version: "v1",
            kind: "NodeProxyOptions",
            verbs: &["create", "delete", "get", "patch", "update"],
        },
        Subresource { name: "status", group: "", version: "v1", kind: "Node", verbs: &["get", "patch", "update"] },
    ],
    status_on_create: StatusOnCreate::Keep,
    fields: &[FieldLabel { label: "spec.unschedulable", pointer: "/spec/unschedulable", absent: "false" }],
    columns: COLUMNS,
    hooks: Hooks { row, ..Hooks::PLAIN },
    ..Kind::cluster("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Node", list: "NodeList", plural: "nodes", singular: "node" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Status", "Readiness of the node, and whether pods are scheduled to it"),
    Column::text("Roles", "Roles of the node"),
    Column::AGE,
    Column::text("Version", "Version that the kubelet reports"),
    Column::wide("Internal-IP", "Addresses of type InternalIP"),
    Column::wide("External-IP", "Addresses of type ExternalIP"),
    Column::wide("OS-Image", "Operating system of the node"),
    Column::wide("Kernel-Version", "Kernel of the node"),
    Column::wide("Container-Runtime", "Container runtime of the node"),
];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let info = object.at("status").at("nodeInfo");
    let mut kernel = or(info.text("kernelVersion"), "<unknown>").as_str().unwrap_or_default().to_string();
    if !info.text("architecture").is_empty() {
        kernel.push_str(&format!(" ({})", info.text("architecture")));
    }
    vec![
        table::name(object),
        status(object).into(),
        table::or_none(&roles(object).join(",")),
        table::age(object, now),
        info.text("kubeletVersion").into(),
        address(object, "InternalIP"),
        address(object, "ExternalIP"),
        or(info.text("osImage"), "<unknown>"),
        kernel.into(),
        or(info.text("containerRuntimeVersion"), "<unknown>"),
    ]
}

fn status(object: &Value) -> String {
    let ready = table::condition(object.at("status"), "Ready").map(|c| c.text("status") == "True");
    let text = match ready {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    };
    if object.at("spec").flag("unschedulable") { format!("{text},SchedulingDisabled") } else { text.to_string() }
}

/// From the labels `node-role.kubernetes.io/ROLE` and `kubernetes.io/role=ROLE`, sorted.
fn roles(object: &Value) -> Vec<&str> {
    let mut roles: Vec<&str> = object
        .at("metadata")
        .entries("labels")
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    roles
}

fn address(object: &Value, kind: &str) -> Value {
    let found = object.at("status").list("addresses").iter().find(|a| a.text("type") == kind);
    table::or_none(found.map_or("", |a| a.text("address")))
}
