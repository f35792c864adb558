//! `discovery.k8s.io/v1` EndpointSlice.

use jiff::Timestamp;
use serde_json::Value;

use crate::addresses::{endpoint_ip, warn_of_ips};
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part};
use crate::meta;
use crate::names::{dns_label, dns_subdomain, label_value, qualified_name};
use crate::table;
use crate::value::{Fields, objects_in, set_if_unset};
use crate::warnings::Warnings;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.discovery.v1.EndpointSlice",
    generation: true,
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, validate_update, warnings, ..Hooks::PLAIN },
    ..Kind::namespaced("discovery.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "EndpointSlice", list: "EndpointSliceList", plural: "endpointslices", singular: "endpointslice" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("AddressType", "Kind of addresses"),
    Column::text("Ports", "Ports of the endpoints"),
    Column::text("Endpoints", "Addresses of the endpoints"),
    Column::AGE,
];

fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    for port in objects_in(object, "ports") {
        port.entry("name").or_insert_with(|| "".into());
        set_if_unset(port, "protocol", "TCP");
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = object
        .list("ports")
        .iter()
        .map(|p| match p.int("port") {
            Some(number) => number.to_string(),
            None => p.at("name").as_str().unwrap_or("*").to_string(),
        })
        .collect();
    let addresses = object.list("endpoints").iter().flat_map(|e| e.list("addresses"));
    let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_string).collect();
    vec![
        table::name(object),
        object.text("addressType").into(),
        table::with_more(&ports),
        table::with_more(&addresses),
        table::age(object, now),
    ]
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("addressType");
    match object.text("addressType") {
        "" => errors.required(&path, ""),
        "IPv4" | "IPv6" | "FQDN" => {}
        other => errors.not_supported(&path, other, &["FQDN", "IPv4", "IPv6"]),
    }
    ports(object.list("ports"), &Path::root("ports"), errors);
    let path = Path::root("endpoints");
    let endpoints = object.list("endpoints");
    if endpoints.len() > 1_000 {
        return errors.too_many(&path, endpoints.len(), 1_000);
    }
    for (index, item) in endpoints.iter().enumerate() {
        endpoint(item, object.text("addressType"), &path.index(index), errors);
    }
}

fn ports(ports: &[Value], path: &Path, errors: &mut Errors) {
    if ports.len() > 20_000 {
        return errors.too_many(path, ports.len(), 20_000);
    }
    let mut names = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.text("name");
        if !name.is_empty() {
            dns_label(name).iter().for_each(|text| errors.invalid(&path.child("name"), name, text));
        }
        if names.contains(&name) {
            errors.duplicate(&path.child("name"), name);
        }
        names.push(name);
        match port.text("protocol") {
            "" => errors.required(&path.child("protocol"), ""),
            "TCP" | "UDP" | "SCTP" => {}
            other => errors.not_supported(&path.child("protocol"), other, &["SCTP", "TCP", "UDP"]),
        }
        let protocol = port.text("appProtocol");
        if !protocol.is_empty() {
            let path = path.child("appProtocol");
            qualified_name(protocol).iter().for_each(|text| errors.invalid(&path, protocol, text));
        }
    }
}

fn endpoint(endpoint: &Value, kind: &str, path: &Path, errors: &mut Errors) {
    let addresses = endpoint.list("addresses");
    let at = path.child("addresses");
    if addresses.is_empty() {
        errors.required(&at, "must contain at least 1 address");
    } else if addresses.len() > 100 {
        errors.too_many(&at, addresses.len(), 100);
    }
    for (index, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
        let item = at.index(index);
        if kind == "FQDN" {
            dns_subdomain(address).iter().for_each(|text| errors.invalid(&item, address, text));
            continue;
        }
        match (kind, address.parse::<std::net::IpAddr>()) {
            ("IPv4", Ok(ip)) if !ip.is_ipv4() => errors.invalid(&at, address, "must be an IPv4 address"),
            ("IPv6", Ok(ip)) if !ip.is_ipv6() => errors.invalid(&at, address, "must be an IPv6 address"),
            _ => endpoint_ip(address, &item, errors),
        }
    }
    for (field, rule) in [("nodeName", dns_subdomain as fn(&str) -> _), ("hostname", dns_label)] {
        if let Some(name) = endpoint.at(field).as_str() {
            rule(name).iter().for_each(|text| errors.invalid(&path.child(field), name, text));
        }
    }
    meta::labels(endpoint.at("deprecatedTopology"), &path.child("deprecatedTopology"), errors);
    hints(endpoint.at("hints"), &path.child("hints"), errors);
}

fn hints(hints: &Value, path: &Path, errors: &mut Errors) {
    for (field, rule) in [("forZones", label_value as fn(&str) -> _), ("forNodes", dns_subdomain)] {
        let (all, path) = (hints.list(field), path.child(field));
        if all.len() > 8 {
            return errors.too_many(&path, all.len(), 8);
        }
        let mut seen = Vec::new();
        for (index, one) in all.iter().enumerate() {
            let item = path.index(index);
            let (name, path) = (one.text("name"), item.child("name"));
            if seen.contains(&name) {
                errors.duplicate(&path, name);
            }
            seen.push(name);
            rule(name).iter().for_each(|text| errors.invalid(&path, name, text));
        }
    }
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    validate(object, errors);
    meta::immutable(object.at("addressType"), old.at("addressType"), &Path::root("addressType"), errors);
}

/// Those of the controllers are as they should be, and many.
fn warnings(_part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    if old.is_none() && object.text("addressType") == "FQDN" {
        warnings.say("spec.addressType: FQDN endpoints are deprecated");
    }
    let manager = object.at("metadata").at("labels").text("endpointslice.kubernetes.io/managed-by");
    if matches!(manager, "endpointslice-controller.k8s.io" | "endpointslicemirroring-controller.k8s.io") {
        return;
    }
    let path = Path::root("endpoints");
    for (index, endpoint) in object.list("endpoints").iter().enumerate() {
        let path = path.index(index);
        warn_of_ips(endpoint.list("addresses"), &path.child("addresses"), warnings);
    }
}
