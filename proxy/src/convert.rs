//! From the API's objects to the proxy's trimmed ones.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::types::{
    Endpoint, EndpointPort, EndpointSlice, Hints, ObjectName, Protocol, Service, ServicePort, TrafficPolicy,
};

/// Objects that carry it belong to another proxy (well-known labels reference).
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Objects that carry it are of a headless Service (well-known labels reference).
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Which Service an EndpointSlice is of.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// `DEFAULT_CLIENT_IP_SERVICE_AFFINITY_SECONDS` of the Service API.
const DEFAULT_AFFINITY_SECONDS: u64 = 10_800;

/// The name of any object.
pub fn object_name(metadata: &ObjectMeta) -> ObjectName {
    ObjectName::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// The Service as the proxy sees it; `None` for one that is not to be proxied (headless, ExternalName, another
/// proxy's), which is to be removed if it was there.
pub fn service(service: &core::Service) -> Option<Service> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") || is_foreign(&service.metadata) {
        return None;
    }
    let mut cluster_ips = addresses(spec.cluster_ips.as_deref().unwrap_or_default());
    if cluster_ips.is_empty() {
        cluster_ips.extend(spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    if cluster_ips.is_empty() {
        return None;
    }
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = ingress.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    Some(Service {
        cluster_ips,
        external_ips: addresses(spec.external_ips.as_deref().unwrap_or_default()),
        load_balancer_ips: ingress
            .iter()
            .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
            .collect(),
        source_ranges: source_ranges(spec),
        ports: spec.ports.iter().flatten().filter_map(service_port).collect(),
        internal_policy: policy(spec.internal_traffic_policy.as_deref()),
        external_policy: policy(spec.external_traffic_policy.as_deref()),
        affinity: affinity(spec),
        health_check_port: health_check_port(spec),
    })
}

/// The EndpointSlice as the proxy of `node_name` sees it, with the Service that it is of; `None` for one that is not
/// to be proxied, which is to be removed if it was there.
pub fn endpoint_slice(slice: &discovery::EndpointSlice, node_name: &str) -> Option<(ObjectName, EndpointSlice)> {
    if slice.address_type == "FQDN" || is_foreign(&slice.metadata) {
        return None;
    }
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    let service = ObjectName::new(slice.metadata.namespace.as_deref().unwrap_or_default(), service);
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        Some(EndpointPort {
            name: port.name.as_deref().unwrap_or_default().into(),
            protocol: Protocol::parse(port.protocol.as_deref())?,
            port: u16::try_from(port.port?).ok()?,
        })
    });
    let endpoints = slice.endpoints.iter().flatten().filter_map(|from| endpoint(from, node_name));
    Some((service, EndpointSlice { ports: ports.collect(), endpoints: endpoints.collect() }))
}

fn is_foreign(metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL) || labels.contains_key(HEADLESS_LABEL))
}

fn addresses(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Validation lets spaces around them pass.
fn source_ranges(spec: &core::ServiceSpec) -> Vec<IpNet> {
    let texts = spec.load_balancer_source_ranges.iter().flatten();
    texts.filter_map(|text| text.trim().parse().ok()).collect()
}

fn service_port(port: &core::ServicePort) -> Option<ServicePort> {
    Some(ServicePort {
        name: port.name.as_deref().unwrap_or_default().into(),
        protocol: Protocol::parse(port.protocol.as_deref())?,
        port: u16::try_from(port.port).ok()?,
        node_port: port.node_port.and_then(number),
    })
}

fn policy(text: Option<&str>) -> TrafficPolicy {
    if text == Some("Local") { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
}

/// As the Service API says, only load balancers ask which nodes have endpoints, and only where it makes a difference.
fn health_check_port(spec: &core::ServiceSpec) -> Option<u16> {
    let asked = spec.type_.as_deref() == Some("LoadBalancer")
        && policy(spec.external_traffic_policy.as_deref()) == TrafficPolicy::Local;
    spec.health_check_node_port.filter(|_| asked).and_then(number)
}

/// A port that is given; 0 is none.
fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn affinity(spec: &core::ServiceSpec) -> Option<Duration> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let client_ip = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = client_ip.and_then(|client_ip| client_ip.timeout_seconds).and_then(|s| u64::try_from(s).ok());
    Some(Duration::from_secs(seconds.unwrap_or(DEFAULT_AFFINITY_SECONDS)))
}

fn endpoint(endpoint: &discovery::Endpoint, node_name: &str) -> Option<Endpoint> {
    let address = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    Some(Endpoint {
        address,
        ready,
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(true),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        local: endpoint.node_name.as_deref() == Some(node_name),
        hints: endpoint.hints.as_ref().and_then(|given| hints(given, node_name)).map(Arc::new),
    })
}

fn hints(given: &discovery::EndpointHints, node_name: &str) -> Option<Hints> {
    let nodes = given.for_nodes.as_deref().unwrap_or_default();
    let zones = given.for_zones.iter().flatten().map(|zone| zone.name.as_str().into());
    let hints = Hints {
        for_this_node: (!nodes.is_empty()).then(|| nodes.iter().any(|node| node.name == node_name)),
        zones: zones.collect(),
    };
    (hints != Hints::default()).then_some(hints)
}
