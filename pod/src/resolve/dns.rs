//! `/etc/resolv.conf` of a pod.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

/// Name servers that the resolver heeds.
const MAX_SERVERS: usize = 3;
/// Search domains, and their length in all (API validation of `dnsConfig`).
const MAX_SEARCHES: (usize, usize) = (32, 2048);
/// Of longer search domains some resolvers die (glibc 2.28), so that they are left out.
const MAX_DOMAIN: usize = 253;

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

/// The configuration of a pod by `dnsPolicy` and `dnsConfig`. `ClusterFirst` is `Default` with host networking, and
/// where the cluster has no name server.
#[must_use]
pub fn dns(pod: &Pod, facts: &DnsFacts) -> DnsConfig {
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

fn limited(config: DnsConfig) -> DnsConfig {
    let mut servers = without_twins(config.servers);
    servers.truncate(MAX_SERVERS);
    let mut searches = without_twins(config.searches);
    searches.truncate(MAX_SEARCHES.0);
    searches.retain(|search| search.len() <= MAX_DOMAIN);
    while searches.iter().map(|search| search.len() + 1).sum::<usize>() > MAX_SEARCHES.1 + 1 {
        searches.pop();
    }
    DnsConfig { servers, searches, options: config.options }
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
