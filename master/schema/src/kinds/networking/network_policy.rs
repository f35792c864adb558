//! `networking.k8s.io/v1` NetworkPolicy. It is stored and shown; the pod network does not enforce it.

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::addresses::{INVALID_CIDR, warn_of_cidr, warn_of_cidrs};
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part};
use crate::names::port_number;
use crate::value::{Fields, object_in, objects_in, set_if_unset};
use crate::warnings::Warnings;
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.networking.v1.NetworkPolicy",
    short_names: &["netpol"],
    generation: true,
    columns: &[Column::NAME, Column::text("Pod-Selector", "The pods that it is about"), Column::AGE],
    hooks: Hooks { default, row, validate, revalidate: true, warnings, ..Hooks::PLAIN },
    ..Kind::namespaced("networking.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "NetworkPolicy", list: "NetworkPolicyList", plural: "networkpolicies", singular: "networkpolicy" };

/// Each direction with the field that names the other side.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

fn default(object: &mut Value) {
    let Value::Object(policy) = object else { return };
    let spec = object_in(policy, "spec");
    for (direction, _) in DIRECTIONS {
        for rule in objects_in(spec, direction) {
            objects_in(rule, "ports").for_each(|port| set_if_unset(port, "protocol", "TCP"));
        }
    }
    if spec.list("policyTypes").is_empty() {
        let egress = !spec.list("egress").is_empty();
        spec.insert("policyTypes".into(), if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![table::name(object), table::selector(object.at("spec").at("podSelector")), table::age(object, now)]
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = object.at("spec");
    meta::label_selector(spec.at("podSelector"), &path.child("podSelector"), errors);
    for (direction, side) in DIRECTIONS {
        let at = path.child(direction);
        for (index, rule) in spec.list(direction).iter().enumerate() {
            let path = at.index(index);
            let ports = path.child("ports");
            for (index, port) in rule.list("ports").iter().enumerate() {
                policy_port(port, &ports.index(index), errors);
            }
            let peers = path.child(side);
            for (index, peer) in rule.list(side).iter().enumerate() {
                policy_peer(peer, &peers.index(index), errors);
            }
        }
    }
    let types = spec.list("policyTypes");
    let at = path.child("policyTypes");
    if types.len() > 2 {
        errors.invalid(&at, spec.at("policyTypes").clone(), "may not specify more than two policyTypes");
    }
    for (index, kind) in types.iter().filter_map(Value::as_str).enumerate() {
        if !matches!(kind, "Ingress" | "Egress") {
            errors.not_supported(&at.index(index), kind, &["Egress", "Ingress"]);
        }
    }
}

fn policy_port(port: &Value, path: &Path, errors: &mut Errors) {
    let protocol = port.text("protocol");
    if !matches!(protocol, "" | "TCP" | "UDP" | "SCTP") {
        errors.not_supported(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
    }
    match port.at("port") {
        Value::Number(number) => {
            let number = number.as_i64().unwrap_or(0);
            if let Some(text) = port_number(number) {
                errors.invalid(&path.child("port"), number, &text);
            }
            if let Some(end) = port.int("endPort").filter(|end| *end < number) {
                errors.invalid(&path.child("endPort"), end, "must be greater than or equal to `port`");
            }
        }
        Value::String(name) => {
            let wrong = crate::names::port_name(name);
            wrong.iter().for_each(|text| errors.invalid(&path.child("port"), name.as_str(), text));
            if let Some(end) = port.int("endPort") {
                errors.invalid(&path.child("endPort"), end, "may not be specified when `port` is non-numeric");
            }
        }
        _ => {
            if let Some(end) = port.int("endPort") {
                errors.invalid(&path.child("endPort"), end, "may not be specified when `port` is not specified");
            }
        }
    }
}

fn policy_peer(peer: &Value, path: &Path, errors: &mut Errors) {
    let mut selected = false;
    for field in ["podSelector", "namespaceSelector"].into_iter().filter(|field| peer.has(field)) {
        selected = true;
        meta::label_selector(peer.at(field), &path.child(field), errors);
    }
    if peer.has("ipBlock") {
        if selected {
            errors.forbidden(path, "may not specify both ipBlock and another peer");
        }
        return ip_block(peer.at("ipBlock"), &path.child("ipBlock"), errors);
    }
    if !selected {
        errors.required(path, "must specify a peer");
    }
}

fn ip_block(block: &Value, path: &Path, errors: &mut Errors) {
    let cidr = block.text("cidr");
    if cidr.is_empty() {
        return errors.required(&path.child("cidr"), "");
    }
    let Ok(whole) = cidr.parse::<IpNet>() else { return errors.invalid(&path.child("cidr"), cidr, INVALID_CIDR) };
    let at = path.child("except");
    for (index, except) in block.list("except").iter().filter_map(Value::as_str).enumerate() {
        match except.parse::<IpNet>() {
            Err(_) => errors.invalid(&at.index(index), except, INVALID_CIDR),
            Ok(part) if !whole.contains(&part) || part.prefix_len() <= whole.prefix_len() => {
                errors.invalid(&at.index(index), except, "must be a strict subset of `cidr`");
            }
            Ok(_) => {}
        }
    }
}

/// Of a new one also what upstream cannot know (docs/limits.md): whoever makes it relies on it.
fn warnings(_part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    if old.is_none() {
        warnings.say("Keelson's pod network does not enforce NetworkPolicies");
    }
    let (spec, path) = (object.at("spec"), Path::root("spec"));
    for (direction, side) in DIRECTIONS {
        let rules = path.child(direction);
        for (index, rule) in spec.list(direction).iter().enumerate() {
            let rule_path = rules.index(index);
            let peers = rule_path.child(side);
            for (index, peer) in rule.list(side).iter().enumerate() {
                let (block, path) = (peer.at("ipBlock"), peers.index(index));
                let path = path.child("ipBlock");
                warn_of_cidr(block.text("cidr"), &path.child("cidr"), warnings);
                warn_of_cidrs(block.list("except"), &path.child("except"), warnings);
            }
        }
    }
}
