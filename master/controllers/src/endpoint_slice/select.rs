//! Which endpoints a Service should have. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::pod::is_terminal;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::families;
use crate::pods;

/// The node label that endpoints carry as their zone.
pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";
const SAME_NODE: &str = "PreferSameNode";
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameZone", SAME_NODE];
const TOPOLOGY_MODES: [&str; 2] = ["service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"];
const TOLERATE_UNREADY: &str = "service.alpha.kubernetes.io/tolerate-unready-endpoints";

/// Endpoints that share one address family and the same port numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    pub(crate) address_type: &'static str,
    pub(crate) ports: Vec<EndpointPort>,
    pub(crate) endpoints: Vec<Endpoint>,
}

pub(crate) fn has_selector(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| !selector.is_empty())
        && spec.and_then(|spec| spec.type_.as_deref()) != Some("ExternalName")
}

pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let Some(selector) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { return false };
    let labels = pod.metadata.labels.as_ref();
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// Whether a change of a pod can change an endpoint.
pub(crate) fn differs(old: &Pod, new: &Pod) -> bool {
    let facts = |pod: &Pod| {
        let status = pod.status.as_ref();
        (
            is_terminal(pod),
            pods::is_ready(pod),
            pod.metadata.deletion_timestamp.is_some(),
            pods::node_name(pod).map(str::to_owned),
            status.and_then(|status| status.pod_ip.clone()),
            status.and_then(|status| status.pod_ips.clone()),
            pod.spec.as_ref().and_then(|spec| spec.hostname.clone()),
        )
    };
    facts(old) != facts(new)
}

/// The endpoints of a Service, grouped as slices have to be.
pub(crate) fn wanted(service: &Service, pods: &[Arc<Pod>], zone_of: &dyn Fn(&str) -> Option<String>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for family in families(service) {
        for pod in pods.iter().filter(|pod| belongs(pod)) {
            let Some(address) = address(pod, family) else { continue };
            let ports = endpoint_ports(service, pod);
            let endpoint = endpoint(service, pod, address, zone_of);
            match groups.iter_mut().find(|group| group.address_type == family && group.ports == ports) {
                Some(group) => group.endpoints.push(endpoint),
                None => groups.push(Group { address_type: family, ports, endpoints: vec![endpoint] }),
            }
        }
        if !groups.iter().any(|group| group.address_type == family) {
            // A Service without pods has one empty slice, so that its clients know that it was looked at.
            groups.push(Group { address_type: family, ports: Vec::new(), endpoints: Vec::new() });
        }
    }
    groups
}

/// Pods that ended have no address any more; one that is being deleted stays, as terminating.
fn belongs(pod: &Pod) -> bool {
    !is_terminal(pod)
}

pub(crate) fn address(pod: &Pod, family: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).chain(status.pod_ip.clone());
    all.into_iter().find(|ip| !ip.is_empty() && ip.contains(':') == (family == "IPv6"))
}

fn endpoint(service: &Service, pod: &Pod, address: String, zone_of: &dyn Fn(&str) -> Option<String>) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = publishes_not_ready(service) || (serving && !terminating);
    let node = pods::node_name(pod);
    let zone = node.and_then(zone_of);
    let hints = if ready { hints(service, node, zone.as_deref()) } else { None };
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: node.map(str::to_owned),
        target_ref: Some(target(pod)),
        zone,
        hints,
        ..Endpoint::default()
    }
}

/// For whom a ready endpoint is meant by `trafficDistribution`: for clients of its zone, with `PreferSameNode` first for those of its node. Hints
/// by capacity, which the annotation asks for instead, are not given.
fn hints(service: &Service, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    if !DISTRIBUTIONS.contains(&distribution) || is_by_capacity(service) {
        return None;
    }
    let node = node.filter(|_| distribution == SAME_NODE);
    let hints = EndpointHints {
        for_nodes: node.map(|name| vec![ForNode { name: name.to_owned() }]),
        for_zones: zone.map(|name| vec![ForZone { name: name.to_owned() }]),
    };
    (hints != EndpointHints::default()).then_some(hints)
}

/// Whether the Service asks for topology aware routing; the older of the two annotations counts.
fn is_by_capacity(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    let mode = annotations.and_then(|all| TOPOLOGY_MODES.iter().find_map(|key| all.get(*key)));
    mode.is_some_and(|mode| mode == "Auto" || mode == "auto")
}

pub(crate) fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// A pod has a name of its own in DNS when its subdomain is the Service.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let named = spec.hostname.clone().filter(|name| !name.is_empty())?;
    (spec.subdomain == service.metadata.name && pod.metadata.namespace == service.metadata.namespace).then_some(named)
}

pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let annotations = service.metadata.annotations.as_ref();
    spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
        || annotations.and_then(|all| all.get(TOLERATE_UNREADY)).is_some_and(|value| value == "true")
}

/// The ports that the pod serves; a named target port that it does not have is left out.
fn endpoint_ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let found = ports.filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target_port(port, pod)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
    });
    found.collect()
}

/// The number of a Service's target port on this pod.
pub(crate) fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let spec = pod.spec.as_ref()?;
            // Sidecars (init containers that go on running) may serve ports too.
            let sidecars = spec.init_containers.iter().flatten().filter(|one| one.restart_policy.is_some());
            spec.containers.iter().chain(sidecars).find_map(|container| named_port(container, name, protocol))
        }
    }
}

fn named_port(container: &Container, name: &str, protocol: &str) -> Option<i32> {
    let mut ports = container.ports.iter().flatten();
    let found =
        ports.find(|port| port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol);
    found.map(|port| port.container_port)
}

/// Labels of a Service that its slices and Endpoints carry too.
pub(crate) fn service_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| key != super::SERVICE_NAME && key != super::MANAGED_BY && key != HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

/// Marks slices and Endpoints of Services without a cluster IP.
const HEADLESS: &str = "service.kubernetes.io/headless";

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}
