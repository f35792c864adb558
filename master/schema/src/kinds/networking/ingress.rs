//! `networking.k8s.io/v1` Ingress.

use jiff::Timestamp;
use serde_json::Value;

use crate::addresses::warn_of_load_balancer;
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part, Subresource};
use crate::names::{dns_1035_label, dns_subdomain, port_name, port_number};
use crate::table;
use crate::value::Fields;
use crate::warnings::Warnings;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.networking.v1.Ingress",
    short_names: &["ing"],
    subresources: &[Subresource::status("networking.k8s.io", "v1", "Ingress")],
    generation: true,
    columns: COLUMNS,
    hooks: Hooks { row, validate, revalidate: true, warnings, ..Hooks::PLAIN },
    ..Kind::namespaced("networking.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Ingress", list: "IngressList", plural: "ingresses", singular: "ingress" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Class", "The class of controllers that serve it"),
    Column::text("Hosts", "Hosts that it serves"),
    Column::text("Address", "Where it is served"),
    Column::text("Ports", "Ports that it is served on"),
    Column::AGE,
];

/// How many hosts are shown.
const SHOWN_HOSTS: usize = 3;
const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
const BAD_SEQUENCES: [&str; 4] = ["//", "/./", "/../", "%2f"];
const BAD_ENDS: [&str; 2] = ["/..", "/."];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    let rules = spec.list("rules");
    let hosts: Vec<&str> = rules.iter().map(|rule| rule.text("host")).filter(|host| !host.is_empty()).collect();
    let mut shown = hosts.iter().take(SHOWN_HOSTS).copied().collect::<Vec<_>>().join(",");
    if hosts.len() > SHOWN_HOSTS {
        shown += &format!(" + {} more...", rules.len() - SHOWN_HOSTS);
    }
    let ingress = object.at("status").at("loadBalancer").list("ingress");
    let mut addresses: Vec<&str> = ingress
        .iter()
        .map(|one| if one.text("ip").is_empty() { one.text("hostname") } else { one.text("ip") })
        .collect();
    addresses.sort_unstable();
    vec![
        table::name(object),
        table::or_none(spec.text("ingressClassName")),
        table::or(&shown, "*"),
        addresses.join(",").into(),
        if spec.list("tls").is_empty() { "80".into() } else { "80, 443".into() },
        table::age(object, now),
    ]
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = object.at("spec");
    let rules = spec.list("rules");
    if rules.is_empty() && !spec.has("defaultBackend") {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.invalid(&path, spec.at("rules").clone(), detail);
    }
    if spec.has("defaultBackend") {
        backend(spec.at("defaultBackend"), &path.child("defaultBackend"), errors);
    }
    let at = path.child("rules");
    for (index, rule) in rules.iter().enumerate() {
        let path = at.index(index);
        host(rule.text("host"), &path.child("host"), errors);
        if rule.has("http") {
            let path = path.child("http");
            paths(rule.at("http").list("paths"), &path.child("paths"), errors);
        }
    }
    let at = path.child("tls");
    for (index, tls) in spec.list("tls").iter().enumerate() {
        let path = at.index(index);
        let path = path.child("hosts");
        for (index, name) in tls.list("hosts").iter().filter_map(Value::as_str).enumerate() {
            host_name(name, &path.index(index), errors);
        }
    }
    if let Some(class) = spec.at("ingressClassName").as_str() {
        dns_subdomain(class).iter().for_each(|text| errors.invalid(&path.child("ingressClassName"), class, text));
    }
}

fn host(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        return;
    }
    if name.parse::<std::net::IpAddr>().is_ok() {
        errors.invalid(path, name, "must be a DNS name, not an IP address");
    }
    host_name(name, path, errors);
}

fn host_name(name: &str, path: &Path, errors: &mut Errors) {
    match name.strip_prefix("*.") {
        Some(rest) if dns_subdomain(rest).is_empty() => {}
        _ if name.contains('*') => {
            let detail = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which \
                          must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric \
                          character (e.g. '*.example.com', regex used for validation is \
                          '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
            errors.invalid(path, name, detail);
        }
        _ => dns_subdomain(name).iter().for_each(|text| errors.invalid(path, name, text)),
    }
}

fn paths(paths: &[Value], path: &Path, errors: &mut Errors) {
    if paths.is_empty() {
        errors.required(path, "");
    }
    for (index, one) in paths.iter().enumerate() {
        let path = path.index(index);
        let (text, at) = (one.text("path"), path.child("path"));
        match one.at("pathType").as_str() {
            None => {
                errors.required(&path.child("pathType"), "pathType must be specified");
                continue;
            }
            Some("Exact" | "Prefix") => {
                if !text.starts_with('/') {
                    errors.invalid(&at, text, "must be an absolute path");
                }
                for bad in BAD_SEQUENCES.iter().chain(&["%2F"]).filter(|bad| text.contains(**bad)) {
                    errors.invalid(&at, text, &format!("must not contain '{bad}'"));
                }
                for bad in BAD_ENDS.iter().filter(|bad| text.ends_with(**bad)) {
                    errors.invalid(&at, text, &format!("cannot end with '{bad}'"));
                }
            }
            Some("ImplementationSpecific") => {
                if !text.is_empty() && !text.starts_with('/') {
                    errors.invalid(&at, text, "must be an absolute path");
                }
            }
            Some(other) => errors.not_supported(&path.child("pathType"), other, PATH_TYPES),
        }
        backend(one.at("backend"), &path.child("backend"), errors);
    }
}

fn backend(backend: &Value, path: &Path, errors: &mut Errors) {
    match (backend.has("resource"), backend.has("service")) {
        (true, true) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (true, false) => {
            let at = path.child("resource");
            for field in ["kind", "name"].into_iter().filter(|field| backend.at("resource").text(field).is_empty()) {
                errors.required(&at.child(field), "");
            }
        }
        (false, true) => service(backend.at("service"), path, errors),
        (false, false) => errors.invalid(path, "", "resource or service backend is required"),
    }
}

fn service(service: &Value, path: &Path, errors: &mut Errors) {
    let at = path.child("service");
    match service.text("name") {
        "" => errors.required(&at.child("name"), ""),
        name => dns_1035_label(name).iter().for_each(|text| errors.invalid(&at.child("name"), name, text)),
    }
    let (name, number) = (service.at("port").text("name"), service.at("port").int("number").unwrap_or(0));
    let port = at.child("port");
    match (name.is_empty(), number == 0) {
        (false, false) => errors.invalid(path, "", "cannot set both port name & port number"),
        (false, true) => port_name(name).iter().for_each(|text| errors.invalid(&port.child("name"), name, text)),
        (true, false) => {
            if let Some(text) = port_number(number) {
                errors.invalid(&port.child("number"), number, &text);
            }
        }
        (true, true) => errors.required(path, "port name or number is required"),
    }
}

fn warnings(part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    const CLASS: &str = "kubernetes.io/ingress.class";
    if part == Part::Status {
        return warn_of_load_balancer(object, warnings);
    }
    let is_annotated = object.at("metadata").at("annotations").has(CLASS);
    if old.is_none() && is_annotated && !object.at("spec").has("ingressClassName") {
        warnings.say(format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead"));
    }
}
