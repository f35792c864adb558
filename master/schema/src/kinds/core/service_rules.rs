//! Whether a Service can be: upstream's `ValidateService` and `ValidateServiceUpdate`.

use serde_json::Value;

use crate::addresses::{INVALID_CIDR, endpoint_ip, warn_of_cidrs, warn_of_ip, warn_of_ips, warn_of_load_balancer};
use crate::errors::{Errors, Path};
use crate::kind::Part;
use crate::meta;
use crate::names::{dns_label, dns_subdomain, port_number, qualified_name};
use crate::pod::handlers;
use crate::value::Fields;
use crate::warnings::Warnings;

const SPEC: Path<'static> = Path::root("spec");
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub(crate) fn validate(object: &Value, errors: &mut Errors) {
    let spec = object.at("spec");
    let headless = is_headless(spec);
    let kind = spec.text("type");
    if spec.list("ports").is_empty() && !headless && kind != "ExternalName" {
        errors.required(&SPEC.child("ports"), "");
    }
    if matches!(kind, "LoadBalancer" | "NodePort") && headless {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.invalid(&SPEC.child("clusterIPs").index(0), "None", &detail);
    }
    if kind == "ExternalName" {
        external_name(spec, errors);
    }
    ports(spec, errors);
    meta::labels(spec.at("selector"), &SPEC.child("selector"), errors);
    affinity(spec, errors);
    cluster_ips(spec, errors);
    let path = SPEC.child("externalIPs");
    for (index, ip) in spec.list("externalIPs").iter().filter_map(Value::as_str).enumerate() {
        endpoint_ip(ip, &path.index(index), errors);
    }
    if kind.is_empty() {
        errors.required(&SPEC.child("type"), "");
    } else if !TYPES.contains(&kind) {
        errors.not_supported(&SPEC.child("type"), kind, TYPES);
    }
    load_balancer(spec, errors);
    traffic(spec, errors);
}

fn is_headless(spec: &Value) -> bool {
    spec.list("clusterIPs").first().and_then(Value::as_str).unwrap_or(spec.text("clusterIP")) == "None"
}

fn external_name(spec: &Value, errors: &mut Errors) {
    for field in ["clusterIPs", "ipFamilies"] {
        if !spec.list(field).is_empty() {
            errors.forbidden(&SPEC.child(field), "may not be set for ExternalName services");
        }
    }
    if spec.has("ipFamilyPolicy") {
        errors.forbidden(&SPEC.child("ipFamilyPolicy"), "may not be set for ExternalName services");
    }
    let path = SPEC.child("externalName");
    let name = spec.text("externalName");
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.required(&path, "");
    } else {
        dns_subdomain(name).iter().for_each(|text| errors.invalid(&path, name, text));
    }
}

fn ports(spec: &Value, errors: &mut Errors) {
    let list = SPEC.child("ports");
    let ports = spec.list("ports");
    let mut names = Vec::new();
    for (index, item) in ports.iter().enumerate() {
        let path = list.index(index);
        let name = item.text("name");
        if name.is_empty() {
            if ports.len() > 1 {
                errors.required(&path.child("name"), "");
            }
        } else {
            dns_label(name).iter().for_each(|text| errors.invalid(&path.child("name"), name, text));
            if names.contains(&name) {
                errors.duplicate(&path.child("name"), name);
            }
            names.push(name);
        }
        port(item, &path, errors);
    }
    for (index, item) in ports.iter().enumerate() {
        let path = list.index(index);
        let node = item.int("nodePort").unwrap_or(0);
        let earlier = |field: &str| {
            let same = |p: &Value| p.at(field) == item.at(field) && p.at("protocol") == item.at("protocol");
            ports.iter().take(index).any(same)
        };
        if node != 0 && spec.text("type") == "ClusterIP" {
            errors.forbidden(&path.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        if node != 0 && earlier("nodePort") {
            errors.duplicate(&path.child("nodePort"), node);
        }
        if earlier("port") {
            let shown = serde_json::json!({ "port": item.at("port"), "protocol": item.at("protocol") });
            errors.duplicate(&path, shown);
        }
    }
}

fn port(port: &Value, path: &Path, errors: &mut Errors) {
    let number = port.int("port").unwrap_or(0);
    if let Some(text) = port_number(number) {
        errors.invalid(&path.child("port"), number, &text);
    }
    match port.text("protocol") {
        "" => errors.required(&path.child("protocol"), ""),
        "TCP" | "UDP" | "SCTP" => {}
        other => errors.not_supported(&path.child("protocol"), other, &["SCTP", "TCP", "UDP"]),
    }
    handlers::port(port.at("targetPort"), &path.child("targetPort"), errors);
    if let Some(protocol) = port.at("appProtocol").as_str() {
        let path = path.child("appProtocol");
        qualified_name(protocol).iter().for_each(|text| errors.invalid(&path, protocol, text));
    }
}

fn affinity(spec: &Value, errors: &mut Errors) {
    let path = SPEC.child("sessionAffinity");
    let config = SPEC.child("sessionAffinityConfig");
    match spec.text("sessionAffinity") {
        "" => errors.required(&path, ""),
        "None" => {
            if spec.has("sessionAffinityConfig") {
                errors.forbidden(&config, "must not be set when session affinity is None");
            }
        }
        "ClientIP" => {
            let seconds = spec.at("sessionAffinityConfig").at("clientIP").int("timeoutSeconds").unwrap_or(0);
            let path = config.child("clientIP");
            if !(1..=86_400).contains(&seconds) {
                let detail = "must be greater than 0 and less than 86400";
                errors.invalid(&path.child("timeoutSeconds"), seconds, detail);
            }
        }
        other => errors.not_supported(&path, other, &["ClientIP", "None"]),
    }
}

fn cluster_ips(spec: &Value, errors: &mut Errors) {
    if spec.text("type") == "ExternalName" {
        return;
    }
    let path = SPEC.child("clusterIPs");
    let ips: Vec<&str> = spec.list("clusterIPs").iter().filter_map(Value::as_str).collect();
    if ips.first().is_some_and(|first| *first != spec.text("clusterIP")) {
        errors.invalid(&path, spec.at("clusterIPs").clone(), "first value must match `clusterIP`");
    }
    if ips.len() > 2 {
        errors.invalid(&path, spec.at("clusterIPs").clone(), "may only hold up to 2 values");
    }
    for (index, ip) in ips.iter().enumerate() {
        if *ip == "None" && (ips.len() > 1 || index > 0) {
            errors.invalid(&path, spec.at("clusterIPs").clone(), "'None' must be the first and only value");
        } else if *ip != "None" && ip.parse::<std::net::IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.invalid(&path.index(index), *ip, detail);
        }
    }
    let path = SPEC.child("ipFamilies");
    for (index, family) in spec.list("ipFamilies").iter().filter_map(Value::as_str).enumerate() {
        if !matches!(family, "IPv4" | "IPv6") {
            errors.not_supported(&path.index(index), family, &["IPv4", "IPv6"]);
        }
    }
    let policy = spec.text("ipFamilyPolicy");
    const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
    if !policy.is_empty() && !POLICIES.contains(&policy) {
        errors.not_supported(&SPEC.child("ipFamilyPolicy"), policy, POLICIES);
    }
}

fn load_balancer(spec: &Value, errors: &mut Errors) {
    let balanced = spec.text("type") == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = spec.list("loadBalancerSourceRanges");
    let path = SPEC.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !balanced {
        errors.forbidden(&path, only);
    }
    for (index, range) in ranges.iter().filter_map(Value::as_str).map(str::trim).enumerate() {
        if range.parse::<ipnet::IpNet>().is_err() {
            errors.invalid(&path.index(index), range, INVALID_CIDR);
        }
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if spec.has(field) && !balanced {
            errors.forbidden(&SPEC.child(field), only);
        }
    }
}

fn traffic(spec: &Value, errors: &mut Errors) {
    let kind = spec.text("type");
    let external =
        matches!(kind, "LoadBalancer" | "NodePort") || (kind == "ClusterIP" && !spec.list("externalIPs").is_empty());
    let policy = spec.text("externalTrafficPolicy");
    let path = SPEC.child("externalTrafficPolicy");
    match (external, policy) {
        (false, "") | (true, "Cluster" | "Local") => {}
        (false, _) => errors.invalid(&path, policy, "may only be set for externally-accessible services"),
        (true, "") => errors.required(&path, ""),
        (true, other) => errors.not_supported(&path, other, &["Cluster", "Local"]),
    }
    let health = spec.int("healthCheckNodePort").unwrap_or(0);
    let needed = kind == "LoadBalancer" && policy == "Local";
    if health != 0 && !needed {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&SPEC.child("healthCheckNodePort"), health, detail);
    }
    let path = SPEC.child("internalTrafficPolicy");
    match (kind, spec.text("internalTrafficPolicy")) {
        ("ExternalName", "") | (_, "Cluster" | "Local") => {}
        (_, "") => errors.required(&path, ""),
        (_, other) => errors.not_supported(&path, other, &["Cluster", "Local"]),
    }
    const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];
    let distribution = spec.text("trafficDistribution");
    if spec.has("trafficDistribution") && !DISTRIBUTIONS.contains(&distribution) {
        errors.not_supported(&SPEC.child("trafficDistribution"), distribution, DISTRIBUTIONS);
    }
}

pub(crate) fn validate_update(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    if part != Part::Main {
        return;
    }
    let (spec, before) = (object.at("spec"), old.at("spec"));
    let stays = spec.text("type") != "ExternalName" && before.text("type") != "ExternalName";
    let (new, was) = (spec.list("clusterIPs"), before.list("clusterIPs"));
    if stays && !was.is_empty() && new.first() != was.first() {
        let path = SPEC.child("clusterIPs");
        let detail = "may not change once set";
        errors.invalid(&path, spec.at("clusterIPs").clone(), detail);
    }
    let families = (spec.list("ipFamilies").first(), before.list("ipFamilies").first());
    if stays && families.1.is_some() && families.0 != families.1 {
        let path = SPEC.child("ipFamilies").index(0).to_string();
        errors.invalid(&Path::root(&path), spec.at("ipFamilies").clone(), "may not change once set");
    }
    validate(object, errors);
}

/// Upstream's `GetWarningsForService`.
pub(super) fn warnings(part: Part, object: &Value, _old: Option<&Value>, warnings: &mut Warnings) {
    if part == Part::Status {
        return warn_of_load_balancer(object, warnings);
    }
    let spec = object.at("spec");
    if object.at("metadata").at("annotations").has("service.kubernetes.io/topology-aware-hints") {
        warnings.say(
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
             service.kubernetes.io/topology-mode instead",
        );
    }
    if !matches!(spec.text("clusterIP"), "" | "None") {
        warn_of_ips(spec.list("clusterIPs"), &SPEC.child("clusterIPs"), warnings);
    }
    external_addresses(spec, warnings);
    warn_of_cidrs(spec.list("loadBalancerSourceRanges"), &SPEC.child("loadBalancerSourceRanges"), warnings);
    let is_elsewhere = spec.text("type") == "ExternalName";
    if is_elsewhere && !spec.list("externalIPs").is_empty() {
        warnings.say("spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    }
    if !is_elsewhere && !spec.text("externalName").is_empty() {
        warnings.say("spec.externalName is ignored when spec.type is not \"ExternalName\"");
    }
    if spec.text("trafficDistribution") == "PreferClose" {
        warnings.of(&SPEC.child("trafficDistribution"), "\"PreferClose\" is deprecated; use \"PreferSameZone\"");
    }
}

fn external_addresses(spec: &Value, warnings: &mut Warnings) {
    let is_headless = spec.text("type") == "ClusterIP" && spec.text("clusterIP") == "None";
    let (balancer, external) = (spec.text("loadBalancerIP"), spec.list("externalIPs"));
    if is_headless {
        if !balancer.is_empty() {
            warnings.say("spec.loadBalancerIP is ignored for headless services");
        }
        if !external.is_empty() {
            warnings.say("spec.externalIPs is ignored for headless services");
        }
        if spec.text("sessionAffinity") != "None" {
            warnings.say("spec.SessionAffinity is ignored for headless services");
        }
    }
    warn_of_ips(external, &SPEC.child("externalIPs"), warnings);
    if !external.is_empty() && !is_headless && spec.text("type") != "ExternalName" {
        warnings.say("spec.externalIPs is deprecated and may no longer be implemented in some clusters");
    }
    warn_of_ip(balancer, &SPEC.child("loadBalancerIP"), warnings);
}
