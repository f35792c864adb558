//! Where requests for pods, nodes and services are passed on to; pure but for reads of the cache.

use std::net::IpAddr;

use admission::Lookup as _;
use serde_json::Value;

use crate::hooks::CacheLookup;
use crate::objects;
use crate::problem::{Problem, Result};
use crate::request::Query;
use crate::road::Call;
use crate::server::Core;

const KUBELET_PORT: u64 = 10_250;

/// Somewhere to send a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// An address or a name.
    pub host: String,
    pub port: u16,
    pub tls: bool,
    /// Whether it is an agent, which is shown the API server's own certificate.
    pub agent: bool,
    /// Whether the client chose it: then it is none of the addresses by which this machine talks to itself.
    pub chosen: bool,
    /// Path and query.
    pub path: String,
}

impl Destination {
    /// For the Host header.
    pub(super) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// `None` where nothing can have been said yet: logs of a pod without a node.
    pub(super) fn of(core: &Core, call: &Call) -> Result<Option<Self>> {
        let query = &call.query;
        let found = match (call.kind.plural, call.path.subresource.as_str()) {
            ("nodes", _) => node_proxy(core, call),
            ("services", _) => service_proxy(core, call),
            ("pods", "proxy") => pod_proxy(core, call),
            ("pods", "log") => return logs(core, call),
            ("pods", "exec") => at_container(core, call, "exec", query.get("container"), stream_query(query)),
            ("pods", "attach") => at_container(core, call, "attach", query.get("container"), stream_query(query)),
            ("pods", "portforward") => {
                let pod = pod(core, call)?;
                let ports = pairs(query, &["port", "ports"]);
                let path = format!("/portForward/{}/{}", call.path.namespace, call.path.name);
                agent_of(core, &pod, &call.path.name, with_query(path, &ports))
            }
            _ => Err(Problem::method_not_allowed()),
        };
        found.map(Some)
    }

    /// Whether this is where it may be (`IsGlobalUnicast`): a client must not make the server talk to itself.
    pub(super) fn may_be_at(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let is_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        !self.chosen || !(is_local || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
    }
}

fn pod(core: &Core, call: &Call) -> Result<Value> {
    objects::stored(call.kind, objects::find(core, call)?.json())
}

/// `pod.LogLocation`
fn logs(core: &Core, call: &Call) -> Result<Option<Destination>> {
    let (query, container) = (log_query(&call.query)?, call.query.get("container"));
    let pod = pod(core, call)?;
    container_of(&pod, &call.path.name, container)?;
    let is_placed = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    is_placed.then(|| at_container(core, call, "containerLogs", container, query)).transpose()
}

fn at_container(
    core: &Core,
    call: &Call,
    verb: &str,
    container: &str,
    query: Vec<(String, String)>,
) -> Result<Destination> {
    let pod = pod(core, call)?;
    let container = container_of(&pod, &call.path.name, container)?;
    let path = format!("/{verb}/{}/{}/{container}", call.path.namespace, call.path.name);
    agent_of(core, &pod, &call.path.name, with_query(path, &query))
}

/// The container that is meant (`pkg/registry/core/pod.podContainer`).
fn container_of<'a>(pod: &'a Value, name: &str, asked: &'a str) -> Result<&'a str> {
    let names = |list: &str| -> Vec<&'a str> {
        pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    if !asked.is_empty() {
        let known = main.iter().chain(&init).chain(&ephemeral).any(|name| *name == asked);
        let unknown = || Problem::bad_request(format!("container {asked} is not valid for pod {name}"));
        return known.then_some(asked).ok_or_else(unknown);
    }
    match (main.as_slice(), init.is_empty(), ephemeral.is_empty()) {
        ([only], _, true) => return Ok(only),
        ([only], true, _) => return Ok(only),
        ([], _, _) => return Err(Problem::bad_request(format!("a container name must be specified for pod {name}"))),
        _ => {}
    }
    let mut text = format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
    if !init.is_empty() {
        text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    if !ephemeral.is_empty() {
        text.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
    }
    Err(Problem::bad_request(text))
}

/// `PodLogOptions`, checked as upstream does, under the names that an agent reads.
fn log_query(query: &Query) -> Result<Vec<(String, String)>> {
    if query.has("sinceSeconds") && query.has("sinceTime") {
        return Err(Problem::bad_request("at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    for (name, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        if query.integer(name)?.is_some_and(|number| number < least) {
            let bound = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            let message = format!("Invalid value: {}: {bound}", query.get(name));
            let error = schema::FieldError { reason: "FieldValueInvalid", field: name.into(), message };
            return Err(Problem::invalid_field("", "PodLogOptions", "", error));
        }
    }
    let known = ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"];
    Ok(pairs(query, &known))
}

/// `PodExecOptions` and `PodAttachOptions` under the names of the kubelet's own API.
fn stream_query(query: &Query) -> Vec<(String, String)> {
    let mut out = pairs(query, &["command"]);
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(ours) {
            out.push((theirs.into(), "1".into()));
        }
    }
    out
}

fn pairs(query: &Query, names: &[&str]) -> Vec<(String, String)> {
    let kept = query.pairs().filter(|(name, _)| names.contains(name));
    kept.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn with_query(path: String, pairs: &[(String, String)]) -> String {
    if pairs.is_empty() {
        return path;
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    format!("{path}?{query}")
}

/// The agent of the node that a pod runs on.
fn agent_of(core: &Core, pod: &Value, name: &str, path: String) -> Result<Destination> {
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(Problem::bad_request(format!("pod {name} does not have a host assigned")));
    }
    agent(core, node, path)
}

fn agent(core: &Core, name: &str, path: String) -> Result<Destination> {
    let lookup = CacheLookup(std::sync::Arc::clone(&core.store));
    let node =
        lookup.get("", "nodes", "", name).ok_or_else(|| Problem::from(auth::Refusal::not_found("", "nodes", name)))?;
    let addresses = node["status"]["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    // `--kubelet-preferred-address-types`
    let host = ["InternalIP", "ExternalIP", "Hostname"]
        .into_iter()
        .find_map(|kind| addresses.iter().find(|address| address["type"] == kind)?["address"].as_str());
    let own = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().filter(|port| *port != 0);
    let port = u16::try_from(own.unwrap_or(KUBELET_PORT)).unwrap_or_default();
    match host {
        Some(host) => Ok(Destination { host: host.to_owned(), port, tls: true, agent: true, chosen: false, path }),
        None => Err(Problem::internal(&format!("no preferred addresses found; known addresses: {addresses:?}"))),
    }
}

/// `[scheme:]name[:port]`
fn split_name(call: &Call) -> Result<(&str, &str, &str)> {
    let id = &call.path.name;
    let parts = match id.split(':').collect::<Vec<_>>().as_slice() {
        [name] => Some(("", *name, "")),
        [name, port] => Some(("", *name, *port)),
        [scheme @ ("" | "http" | "https"), name, port] => Some((*scheme, *name, *port)),
        _ => None,
    };
    let kind = call.kind.kind.to_lowercase();
    let invalid = || Problem::bad_request(format!("invalid {kind} request {id:?}"));
    parts.filter(|(_, name, _)| !name.is_empty()).ok_or_else(invalid)
}

fn rest_of(call: &Call) -> String {
    match call.head.uri.query() {
        Some(query) => format!("/{}?{query}", call.path.rest),
        None => format!("/{}", call.path.rest),
    }
}

fn node_proxy(core: &Core, call: &Call) -> Result<Destination> {
    let (scheme, name, port) = split_name(call)?;
    on_machine_of(agent(core, name, rest_of(call))?, scheme, port)
}

/// The agent, or whatever else listens on its machine: to that nobody shows the API server's certificate.
fn on_machine_of(agent: Destination, scheme: &str, port: &str) -> Result<Destination> {
    let agent = Destination { chosen: true, ..agent };
    let port = match port {
        "" => return Ok(agent),
        text => text.parse().map_err(|_| Problem::bad_request(format!("invalid port {text:?}")))?,
    };
    let is_agent = port == agent.port;
    Ok(Destination { port, tls: is_agent || scheme == "https", agent: is_agent, ..agent })
}

fn pod_proxy(core: &Core, call: &Call) -> Result<Destination> {
    let (scheme, name, port) = split_name(call)?;
    let lookup = CacheLookup(std::sync::Arc::clone(&core.store));
    let pod = lookup.get("", "pods", &call.path.namespace, name).ok_or_else(|| Problem::not_found(call.kind, name))?;
    let containers = pod["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let declared = || containers.iter().flat_map(|c| c["ports"].as_array().into_iter().flatten());
    let wanted = match port {
        "" => declared().next().and_then(|p| p["containerPort"].as_u64()),
        text => text.parse().ok().or_else(|| declared().find(|p| p["name"] == text)?["containerPort"].as_u64()),
    };
    let port = wanted.map_or(Ok(if scheme == "https" { 443 } else { 80 }), u16::try_from);
    let port = port.map_err(|_| Problem::bad_request("invalid port"))?;
    let host = pod["status"]["podIP"].as_str().unwrap_or_default();
    let ip: IpAddr = host.parse().map_err(|_| Problem::bad_request("address not allowed"))?;
    Ok(destination(ip, port, scheme, rest_of(call)))
}

fn service_proxy(core: &Core, call: &Call) -> Result<Destination> {
    let (scheme, name, port) = split_name(call)?;
    let lookup = CacheLookup(std::sync::Arc::clone(&core.store));
    let namespace = &call.path.namespace;
    let service = lookup.get("", "services", namespace, name).ok_or_else(|| Problem::not_found(call.kind, name))?;
    let (ip, port) = service_address(&lookup, &service, port)?;
    Ok(destination(ip, port, scheme, rest_of(call)))
}

/// One of the endpoints of a Service, for a port by name or number; the first where that is empty.
fn service_address(lookup: &CacheLookup, service: &Value, port: &str) -> Result<(IpAddr, u16)> {
    let text = |field: &str| service["metadata"][field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let none = || Problem::unavailable(format!("no endpoints available for service {name:?}"));
    let endpoints = lookup.get("", "endpoints", namespace, name).ok_or_else(none)?;
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let chosen = ports.iter().find(|p| {
        port.is_empty() || p["name"] == port || p["port"].as_u64().is_some_and(|own| port.parse() == Ok(own))
    });
    let chosen =
        chosen.ok_or_else(|| Problem::unavailable(format!("no service port {port:?} found for service {name:?}")))?;
    let port_name = chosen["name"].as_str().unwrap_or_default();
    let subsets = endpoints["subsets"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = subsets.iter().find_map(|subset| {
        let port = subset["ports"].as_array()?.iter().find(|p| p["name"].as_str().unwrap_or_default() == port_name)?;
        let addresses = subset["addresses"].as_array()?;
        let addresses: Vec<&Value> =
            addresses.iter().filter(|address| is_of_a_pod(lookup, namespace, address)).collect();
        let address = addresses.get(rand::random_range(0..addresses.len().max(1)))?;
        Some((address["ip"].as_str()?.parse().ok()?, u16::try_from(port["port"].as_u64()?).ok()?))
    });
    found.ok_or_else(none)
}

/// Whether an endpoint is one of the namespace's pods: who writes Endpoints must not send the server anywhere else.
fn is_of_a_pod(lookup: &CacheLookup, namespace: &str, address: &Value) -> bool {
    let target = &address["targetRef"];
    let pod = target["name"].as_str().filter(|_| target["namespace"] == namespace);
    let pod = pod.and_then(|name| lookup.get("", "pods", namespace, name)).unwrap_or_default();
    pod["status"]["podIPs"].as_array().into_iter().flatten().any(|own| own["ip"] == address["ip"])
}

fn destination(ip: IpAddr, port: u16, scheme: &str, path: String) -> Destination {
    Destination { host: ip.to_string(), port, tls: scheme == "https", agent: false, chosen: true, path }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> Destination {
        let host = "192.0.2.1".to_owned();
        Destination { host, port: 10_250, tls: true, agent: true, chosen: false, path: "/x".into() }
    }

    #[test]
    fn only_the_agent_is_shown_the_api_servers_certificate() {
        for (scheme, port, wanted) in [
            ("", "", (10_250, true, true)),
            ("http", "10250", (10_250, true, true)),
            ("", "9100", (9100, false, false)),
            ("http", "9100", (9100, false, false)),
            ("https", "9100", (9100, true, false)),
        ] {
            let Destination { port: at, tls, agent: is_agent, chosen, .. } =
                on_machine_of(agent(), scheme, port).unwrap();
            assert_eq!(((at, tls, is_agent), chosen), (wanted, true), "{scheme}:{port}");
        }
        assert!(on_machine_of(agent(), "", "70000").is_err());
    }

    #[test]
    fn clients_choose_no_address_of_the_server_itself() {
        let chosen = Destination { chosen: true, ..agent() };
        for ip in
            ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "ff02::1"]
        {
            let ip = ip.parse().unwrap();
            assert!(!chosen.may_be_at(ip) && agent().may_be_at(ip), "{ip}");
        }
        assert!(chosen.may_be_at("10.0.0.1".parse().unwrap()) && chosen.may_be_at("fd00::1".parse().unwrap()));
    }
}
