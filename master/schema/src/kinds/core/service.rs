//! `v1` Service.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::service_rules;
use crate::kind::{Column, FieldLabel, Hooks, Kind, NameRule, Names, Part, Subresource};
use crate::table;
use crate::value::{Fields, Object, object_in, objects_in, put, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[
        Subresource {
            name: "proxy",
            group: "",
            version: "v1",
            kind: "ServiceProxyOptions",
            verbs: &["create", "delete", "get", "patch", "update"],
        },
        Subresource::status("", "v1", "Service"),
    ],
    names: NameRule::Label1035,
    fields: &[FieldLabel::text("spec.clusterIP", "/spec/clusterIP"), FieldLabel::text("spec.type", "/spec/type")],
    returns_deleted_object: true,
    columns: COLUMNS,
    hooks: Hooks {
        default,
        prepare_create,
        prepare_update,
        validate: service_rules::validate,
        validate_update: service_rules::validate_update,
        row,
        warnings: service_rules::warnings,
        ..Hooks::PLAIN
    },
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Service", list: "ServiceList", plural: "services", singular: "service" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Type", "How the service is reached"),
    Column::text("Cluster-IP", "Address inside the cluster"),
    Column::text("External-IP", "Addresses outside the cluster"),
    Column::text("Port(s)", "Ports, and node ports"),
    Column::AGE,
    Column::wide("Selector", "Labels of the pods behind the service"),
];

/// Upstream's `SetDefaults_Service`.
fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    let spec = object_in(object, "spec");
    set_if_unset(spec, "sessionAffinity", "None");
    set_if_unset(spec, "type", "ClusterIP");
    match spec.text("sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" if spec.at("sessionAffinityConfig").at("clientIP").int("timeoutSeconds").is_none() => {
            spec.insert("sessionAffinityConfig".into(), json!({ "clientIP": { "timeoutSeconds": 10_800 } }));
        }
        _ => {}
    }
    for port in objects_in(spec, "ports") {
        let target = port.at("targetPort");
        if target.is_null() || target == 0 || target == "" {
            let number = port.at("port").clone();
            port.insert("targetPort".into(), number);
        }
    }
    traffic_defaults(spec);
}

fn traffic_defaults(spec: &mut Object) {
    let kind = spec.text("type").to_string();
    let external = matches!(kind.as_str(), "LoadBalancer" | "NodePort")
        || (kind == "ClusterIP" && !spec.list("externalIPs").is_empty());
    if external {
        set_if_unset(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        set_if_unset(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_if_unset(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// What the addresses say of each other; the API server allocates those that are missing.
fn prepare_create(object: &mut Value) {
    let Some(Value::Object(spec)) = object.get_mut("spec") else { return };
    mirror_cluster_ip(spec);
    if spec.text("type") != "ExternalName" {
        default_families(spec);
    }
}

fn default_families(spec: &mut Object) {
    set_if_unset(spec, "ipFamilyPolicy", "SingleStack");
    if spec.list("ipFamilies").is_empty() {
        let family = if spec.text("clusterIP").contains(':') { "IPv6" } else { "IPv4" };
        spec.insert("ipFamilies".into(), json!([family]));
    }
}

fn mirror_cluster_ip(spec: &mut Object) {
    let ip = spec.text("clusterIP").to_string();
    if !ip.is_empty() && spec.list("clusterIPs").is_empty() {
        spec.insert("clusterIPs".into(), json!([ip]));
    }
}

fn prepare_update(part: Part, object: &mut Value, old: &Value) {
    if part != Part::Main {
        return;
    }
    let before = old.at("spec");
    let Some(spec) = object.get_mut("spec") else { return };
    keep_allocated(spec, before);
    drop_unused(spec, before);
    let is_in_cluster = has_cluster_ip(spec);
    if let Value::Object(spec) = spec {
        mirror_cluster_ip(spec);
        // It may have been an ExternalName before.
        if is_in_cluster {
            default_families(spec);
        }
    }
}

fn has_cluster_ip(spec: &Value) -> bool {
    matches!(spec.text("type"), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether load balancers ask nodes if they have endpoints (`apiservice.NeedsHealthCheck`).
fn needs_health_check(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local"
}

fn has_node_ports(spec: &Value) -> bool {
    matches!(spec.text("type"), "NodePort" | "LoadBalancer")
}

/// A client that leaves out what the server allocated means to keep it (upstream's `patchAllocatedValues`).
fn keep_allocated(spec: &mut Value, before: &Value) {
    if has_cluster_ip(spec) && has_cluster_ip(before) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            let missing = spec.at(field).as_str().unwrap_or_default().is_empty() && spec.list(field).is_empty();
            if missing {
                put(spec, field, before.at(field).clone());
            }
        }
    }
    if has_node_ports(spec) && has_node_ports(before) {
        let taken: Vec<i64> = spec.list("ports").iter().filter_map(|p| p.int("nodePort")).collect();
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let same = |p: &&Value| p.at("port") == port.at("port") && p.text("protocol") == port.text("protocol");
            let known = before.list("ports").iter().find(same).and_then(|p| p.int("nodePort"));
            let free = known.filter(|number| !taken.contains(number));
            if let (0, Some(number)) = (port.int("nodePort").unwrap_or(0), free) {
                put(port, "nodePort", number.into());
            }
        }
    }
    let keeps = needs_health_check(spec) && needs_health_check(before);
    if keeps && spec.int("healthCheckNodePort").unwrap_or(0) == 0 && before.has("healthCheckNodePort") {
        put(spec, "healthCheckNodePort", before.at("healthCheckNodePort").clone());
    }
}

/// A change of type gives back what the new type does not use (upstream's `dropTypeDependentFields`).
fn drop_unused(spec: &mut Value, before: &Value) {
    let unchanged = |field: &str, spec: &Value| spec.at(field) == before.at(field);
    if has_cluster_ip(before) && !has_cluster_ip(spec) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            if unchanged(field, spec) {
                put(spec, field, Value::Null);
            }
        }
    }
    if has_node_ports(before) && !has_node_ports(spec) {
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let was = before.list("ports").iter().any(|p| p.at("nodePort") == port.at("nodePort"));
            if was {
                put(port, "nodePort", Value::Null);
            }
        }
        if unchanged("externalTrafficPolicy", spec) && spec.list("externalIPs").is_empty() {
            put(spec, "externalTrafficPolicy", Value::Null);
        }
    }
    if needs_health_check(before) && !needs_health_check(spec) && unchanged("healthCheckNodePort", spec) {
        put(spec, "healthCheckNodePort", Value::Null);
    }
    if before.text("type") == "LoadBalancer" && spec.text("type") != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if unchanged(field, spec) {
                put(spec, field, Value::Null);
            }
        }
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    let cluster_ip = spec.list("clusterIPs").first().and_then(Value::as_str).unwrap_or_default();
    let ports: Vec<String> = spec.list("ports").iter().map(port).collect();
    vec![
        table::name(object),
        spec.text("type").into(),
        table::or_none(cluster_ip),
        external_ip(object),
        table::or_none(&ports.join(",")),
        table::age(object, now),
        table::labels(spec.at("selector")),
    ]
}

fn port(port: &Value) -> String {
    let (number, protocol) = (port.int("port").unwrap_or(0), port.text("protocol"));
    match port.int("nodePort").unwrap_or(0) {
        0 => format!("{number}/{protocol}"),
        node => format!("{number}:{node}/{protocol}"),
    }
}

fn external_ip(object: &Value) -> Value {
    let spec = object.at("spec");
    let external = || spec.list("externalIPs").iter().filter_map(Value::as_str);
    match spec.text("type") {
        "ClusterIP" | "NodePort" => table::joined(external()),
        "LoadBalancer" => {
            let ingress = object.at("status").at("loadBalancer").list("ingress");
            let addresses =
                ingress.iter().map(|i| if i.text("ip").is_empty() { i.text("hostname") } else { i.text("ip") });
            let mut addresses: Vec<&str> = addresses.filter(|a| !a.is_empty()).collect();
            addresses.sort_unstable();
            addresses.extend(external());
            table::or(&addresses.join(","), "<pending>")
        }
        "ExternalName" => spec.text("externalName").into(),
        _ => "<unknown>".into(),
    }
}
