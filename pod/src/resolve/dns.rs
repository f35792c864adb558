//! `/etc/resolv.conf` of a pod.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::Event;

/// Name servers that the resolver heeds.
const MAX_SERVERS: usize = 3;
/// Search domains, and their length in all (API validation of `dnsConfig`).
const MAX_SEARCHES: (usize, usize) = (32, 2048);
/// Of longer search domains some resolvers die (glibc 2.28), so that they are left out.
const MAX_DOMAIN: usize = 253;
/// Those that pods have for their cluster.
const CLUSTER_SEARCHES: usize = 3;

/// What the resolver is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The `search` line.
    pub searches: Vec<String>,
    /// The `options` line: `ndots:5`, `edns0`.
    pub options: Vec<String>,
}

/// What the node knows of DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsFacts {
    /// `clusterDNS` of the kubelet configuration.
    pub cluster_servers: Vec<String>,
    /// `clusterDomain`.
    pub cluster_domain: String,
    /// The node's own, from `resolvConf`; `None` where that is empty.
    pub node: Option<DnsConfig>,
    /// The node's addresses, primary first.
    pub node_ips: Vec<IpAddr>,
}

impl DnsFacts {
    /// What is wrong with the node's own `search` line, were it given to pods.
    #[must_use]
    pub fn search_problem(&self, path: &str) -> Option<String> {
        let searches = &self.node.as_ref()?.searches;
        let (number, length) = MAX_SEARCHES;
        let number = if self.cluster_domain.is_empty() { number } else { number - CLUSTER_SEARCHES };
        if searches.len() > number {
            return Some(format!(
                "Resolv.conf file '{path}' contains search line consisting of more than {number} domains!"
            ));
        }
        if searches.iter().any(|search| search.len() > MAX_DOMAIN) {
            return Some(format!(
                "Resolv.conf file {path:?} contains a search path which length is more than allowed {MAX_DOMAIN} chars!"
            ));
        }
        (searches.join(" ").len() > length).then(|| {
            format!("Resolv.conf file '{path}' contains search line which length is more than allowed {length} chars!")
        })
    }
}

/// What a node and its pod are told where the pod is to ask the cluster, and there is nobody to ask.
#[must_use]
pub fn missing_cluster_dns(pod: &Pod, facts: &DnsFacts) -> Option<&'static str> {
    const TEXT: &str = "kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. Falling back to \"Default\" policy.";
    let spec = pod.spec.as_ref();
    let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let wanted = match spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst") {
        "ClusterFirst" => !host_network,
        policy => policy == "ClusterFirstWithHostNet",
    };
    (wanted && facts.cluster_servers.is_empty()).then_some(TEXT)
}

/// The configuration of a pod by `dnsPolicy` and `dnsConfig`, and what is to be said of it. `ClusterFirst` is `Default` with host networking, and
/// where the cluster has no name server.
#[must_use]
pub fn dns(pod: &Pod, facts: &DnsFacts) -> (DnsConfig, Vec<Event>) {
    let none = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&none);
    let host_network = spec.host_network.unwrap_or(false);
    let mut config = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => DnsConfig::default(),
        "ClusterFirst" if !host_network && !facts.cluster_servers.is_empty() => cluster_first(pod, facts),
        "ClusterFirstWithHostNet" if !facts.cluster_servers.is_empty() => cluster_first(pod, facts),
        _ => facts.node.clone().unwrap_or_else(|| nobody_elses(&facts.node_ips)),
    };
    if let Some(own) = &spec.dns_config {
        config.servers.extend(own.nameservers.iter().flatten().cloned());
        config.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            let text = option.value.as_ref().map_or_else(|| name.to_owned(), |value| format!("{name}:{value}"));
            config.options.retain(|old| old.split(':').next() != Some(name));
            config.options.push(text);
        }
    }
    limited(config)
}

/// Without a `resolvConf` pods ask their own machine, and search nowhere: a runtime that is told nothing would copy the node's file.
fn nobody_elses(node_ips: &[IpAddr]) -> DnsConfig {
    let mut servers: Vec<_> = node_ips.iter().map(|ip| if ip.is_ipv6() { "::1" } else { "127.0.0.1" }).collect();
    if servers.is_empty() {
        servers.push("127.0.0.1");
    }
    let servers = servers.into_iter().map(str::to_owned).collect();
    DnsConfig { servers, searches: vec![".".to_owned()], options: Vec::new() }
}

fn cluster_first(pod: &Pod, facts: &DnsFacts) -> DnsConfig {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut searches = Vec::new();
    if !facts.cluster_domain.is_empty() {
        let domain = &facts.cluster_domain;
        searches.extend([format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()]);
    }
    searches.extend(facts.node.iter().flat_map(|node| node.searches.iter().cloned()));
    DnsConfig { servers: facts.cluster_servers.clone(), searches, options: vec!["ndots:5".to_owned()] }
}

fn limited(config: DnsConfig) -> (DnsConfig, Vec<Event>) {
    let mut events = Vec::new();
    let mut servers = without_twins(config.servers);
    if servers.len() > MAX_SERVERS {
        servers.truncate(MAX_SERVERS);
        let line = servers.join(" ");
        let text = format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {line}"
        );
        events.push(Event::warning("DNSConfigForming", &text));
    }
    let mut searches = without_twins(config.searches);
    let wanted = searches.len();
    searches.truncate(MAX_SEARCHES.0);
    searches.retain(|search| search.len() <= MAX_DOMAIN);
    while searches.iter().map(|search| search.len() + 1).sum::<usize>() > MAX_SEARCHES.1 + 1 {
        searches.pop();
    }
    if searches.len() < wanted {
        let line = searches.join(" ");
        let text = format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {line}"
        );
        events.push(Event::warning("DNSConfigForming", &text));
    }
    (DnsConfig { servers, searches, options: config.options }, events)
}

fn without_twins(list: Vec<String>) -> Vec<String> {
    let mut unique: Vec<String> = Vec::with_capacity(list.len());
    for item in list {
        if !unique.contains(&item) {
            unique.push(item);
        }
    }
    unique
}
