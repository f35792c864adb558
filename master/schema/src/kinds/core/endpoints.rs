//! `v1` Endpoints.

use jiff::Timestamp;
use serde_json::Value;

use crate::addresses::{endpoint_ip, warn_of_ip};
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part};
use crate::names::{dns_label, dns_subdomain, port_number, qualified_name};
use crate::table;
use crate::value::{Fields, objects_in, set_if_unset};
use crate::warnings::Warnings;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Endpoints",
    short_names: &["ep"],
    create_on_update: true,
    deprecated: Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    columns: COLUMNS,
    hooks: Hooks { row, default, validate, revalidate: true, warnings, ..Hooks::PLAIN },
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Endpoints", list: "EndpointsList", plural: "endpoints", singular: "endpoints" };

const COLUMNS: &[Column] =
    &[Column::NAME, Column::text("Endpoints", "Addresses and ports behind the service"), Column::AGE];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut shown = Vec::new();
    for subset in object.list("subsets") {
        let addresses = || subset.list("addresses").iter().map(|a| a.text("ip"));
        if subset.list("ports").is_empty() {
            shown.extend(addresses().map(str::to_string));
        }
        for port in subset.list("ports") {
            let port = port.int("port").unwrap_or(0);
            shown.extend(
                addresses().map(|ip| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }),
            );
        }
    }
    vec![table::name(object), table::with_more(&shown), table::age(object, now)]
}

fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    for subset in objects_in(object, "subsets") {
        objects_in(subset, "ports").for_each(|port| set_if_unset(port, "protocol", "TCP"));
    }
}

fn validate(object: &Value, errors: &mut Errors) {
    let subsets = Path::root("subsets");
    for (index, subset) in object.list("subsets").iter().enumerate() {
        let path = subsets.index(index);
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|list| subset.list(list).is_empty()) {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for list in lists {
            let path = path.child(list);
            for (index, item) in subset.list(list).iter().enumerate() {
                address(item, &path.index(index), errors);
            }
        }
        let ports = subset.list("ports");
        let path = path.child("ports");
        for (index, item) in ports.iter().enumerate() {
            port(item, ports.len() > 1, &path.index(index), errors);
        }
    }
}

fn address(address: &Value, path: &Path, errors: &mut Errors) {
    endpoint_ip(address.text("ip"), &path.child("ip"), errors);
    for (field, rule) in [("hostname", dns_label as fn(&str) -> _), ("nodeName", dns_subdomain)] {
        let name = address.text(field);
        if !name.is_empty() {
            rule(name).iter().for_each(|text| errors.invalid(&path.child(field), name, text));
        }
    }
}

fn port(port: &Value, named: bool, path: &Path, errors: &mut Errors) {
    let name = port.text("name");
    if name.is_empty() {
        if named {
            errors.required(&path.child("name"), "");
        }
    } else {
        dns_label(name).iter().for_each(|text| errors.invalid(&path.child("name"), name, text));
    }
    let number = port.int("port").unwrap_or(0);
    if let Some(text) = port_number(number) {
        errors.invalid(&path.child("port"), number, &text);
    }
    if !matches!(port.text("protocol"), "TCP" | "UDP" | "SCTP") {
        errors.not_supported(&path.child("protocol"), port.text("protocol"), &["SCTP", "TCP", "UDP"]);
    }
    let protocol = port.text("appProtocol");
    if !protocol.is_empty() {
        qualified_name(protocol).iter().for_each(|text| errors.invalid(&path.child("appProtocol"), protocol, text));
    }
}

/// Those of the endpoints controller are as they should be, and many.
fn warnings(_part: Part, object: &Value, _old: Option<&Value>, warnings: &mut Warnings) {
    let labels = object.at("metadata").at("labels");
    if labels.text("endpoints.kubernetes.io/managed-by") == "endpoint-controller" {
        return;
    }
    let subsets = Path::root("subsets");
    for (index, subset) in object.list("subsets").iter().enumerate() {
        let path = subsets.index(index);
        for list in ["addresses", "notReadyAddresses"] {
            let path = path.child(list);
            for (index, address) in subset.list(list).iter().enumerate() {
                warn_of_ip(address.text("ip"), &path.index(index).child("ip"), warnings);
            }
        }
    }
}
