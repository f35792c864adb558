//! `v1` Node.

use jiff::Timestamp;
use serde_json::Value;

use crate::addresses::{INVALID_CIDR, warn_of_cidrs};
use crate::errors::{Errors, Path};
use crate::kind::{Column, FieldLabel, Hooks, Kind, Names, Part, StatusOnCreate, Subresource};
use crate::meta;
use crate::names::label_value;
use crate::pod::{resources, scheduling::EFFECTS};
use crate::table::{self, or};
use crate::value::{Fields, put};
use crate::warnings::Warnings;

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
        Subresource::status("", "v1", "Node"),
    ],
    status_on_create: StatusOnCreate::Keep,
    fields: &[FieldLabel { absent: "false", ..FieldLabel::text("spec.unschedulable", "/spec/unschedulable") }],
    columns: COLUMNS,
    hooks: Hooks { row, prepare_create, prepare_update, validate, validate_update, warnings, ..Hooks::PLAIN },
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

/// Configuration that comes from the cluster is no more (KEP-281): who has it keeps it, and nobody gets it.
fn prepare_create(object: &mut Value) {
    drop_config(object, &Value::Null, [("spec", "configSource"), ("status", "config")]);
}

fn prepare_update(part: Part, object: &mut Value, old: &Value) {
    match part {
        Part::Main => drop_config(object, old, [("spec", "configSource")]),
        Part::Status => drop_config(object, old, [("status", "config")]),
        Part::Other(_) => {}
    }
}

fn drop_config<const N: usize>(object: &mut Value, old: &Value, fields: [(&str, &str); N]) {
    for (holder, field) in fields.into_iter().filter(|(holder, field)| !old.at(holder).has(field)) {
        if let Some(holder) = object.get_mut(holder) {
            put(holder, field, Value::Null);
        }
    }
}

fn validate(object: &Value, errors: &mut Errors) {
    let spec = Path::root("spec");
    taints(object, &spec.child("taints"), errors);
    let status = Path::root("status");
    for field in ["capacity", "allocatable"] {
        resources::amounts(object.at("status"), field, &status, errors);
    }
    pod_cidrs(object.at("spec"), &spec.child("podCIDRs"), errors);
}

fn taints(object: &Value, path: &Path, errors: &mut Errors) {
    let mut seen = Vec::new();
    for (index, taint) in object.at("spec").list("taints").iter().enumerate() {
        let path = path.index(index);
        meta::label_name(taint.text("key"), &path.child("key"), errors);
        let wrong = label_value(taint.text("value"));
        if !wrong.is_empty() {
            errors.invalid(&path.child("value"), taint.text("value"), &wrong.join(";"));
        }
        let effect = taint.text("effect");
        if effect.is_empty() {
            errors.required(&path.child("effect"), "");
        } else if !EFFECTS.contains(&effect) {
            errors.not_supported(&path.child("effect"), effect, EFFECTS);
        }
        let pair = (taint.text("key"), effect);
        if seen.contains(&pair) {
            errors.duplicate_because(&path, taint.clone(), "taints must be unique by key and effect pair");
        }
        seen.push(pair);
    }
}

fn pod_cidrs(spec: &Value, path: &Path, errors: &mut Errors) {
    for (index, cidr) in spec.list("podCIDRs").iter().filter_map(Value::as_str).enumerate() {
        if cidr.parse::<ipnet::IpNet>().is_err() {
            errors.invalid(&path.index(index), cidr, INVALID_CIDR);
        }
    }
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    validate(object, errors);
    let path = Path::root("spec");
    let (spec, before) = (object.at("spec"), old.at("spec"));
    if !before.list("podCIDRs").is_empty() && spec.at("podCIDRs") != before.at("podCIDRs") {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.forbidden(&path.child("podCIDRs"), detail);
    }
    if !before.text("providerID").is_empty() && spec.text("providerID") != before.text("providerID") {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden(&path.child("providerID"), detail);
    }
    let path = Path::root("status");
    let path = path.child("addresses");
    let addresses = object.at("status").list("addresses");
    for (index, address) in addresses.iter().enumerate() {
        if addresses.iter().take(index).any(|other| other == address) {
            errors.duplicate(&path.index(index), address.clone());
        }
    }
}

fn warnings(part: Part, object: &Value, _old: Option<&Value>, warnings: &mut Warnings) {
    if part != Part::Main {
        return;
    }
    let (spec, path) = (object.at("spec"), Path::root("spec"));
    if spec.has("configSource") {
        warnings.of(&path.child("configSource"), "the feature is removed");
    }
    if !spec.text("externalID").is_empty() {
        warnings.of(&path.child("externalID"), "this field is deprecated, and is unused by Kubernetes");
    }
    warn_of_cidrs(spec.list("podCIDRs"), &path.child("podCIDRs"), warnings);
}
