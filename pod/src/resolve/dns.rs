//! The resolver of a pod: `dnsPolicy` and `dnsConfig` over the node's and the cluster's (docs: "Customizing DNS Service").

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

/// What glibc and upstream's validation allow.
const SERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_CHARACTERS: usize = 2048;

/// A resolver's configuration, as CRI's `DNSConfig` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl Dns {
    /// Reads a resolv.conf; of repeated `search` lines the last counts.
    #[must_use]
    pub fn parse(resolv_conf: &str) -> Self {
        let mut dns = Self::default();
        for line in resolv_conf.lines().map(str::trim).filter(|l| !l.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            let key = words.next();
            let rest = words.map(str::to_owned);
            match key {
                Some("nameserver") => dns.servers.extend(rest.take(1)),
                Some("search") => dns.searches = rest.filter(|s| s != ".").map(|s| s.trim_end_matches('.').to_owned()).collect(),
                Some("options") => dns.options = rest.collect(),
                _ => {}
            }
        }
        dns
    }
}

/// What the node contributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeDns {
    /// `clusterDNS`.
    pub cluster: Vec<String>,
    /// `clusterDomain`.
    pub domain: String,
    /// The node's own resolver (`resolvConf`).
    pub host: Dns,
}

/// The resolver of a pod, and what is to be warned of: texts of `MissingClusterDNS` and `DNSConfigForming` events.
#[must_use]
pub fn dns(pod: &Pod, node: &NodeDns) -> (Dns, Vec<(&'static str, String)>) {
    let spec = pod.spec.as_ref();
    let on_host = spec.and_then(|s| s.host_network).unwrap_or(false);
    let policy = spec.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let mut warnings = Vec::new();
    let mut dns = match policy {
        "None" => Dns::default(),
        "ClusterFirstWithHostNet" => clustered(pod, node, policy, &mut warnings),
        "ClusterFirst" if !on_host => clustered(pod, node, policy, &mut warnings),
        _ => node.host.clone(),
    };
    if let Some(config) = spec.and_then(|s| s.dns_config.as_ref()) {
        append(&mut dns.servers, config.nameservers.as_deref());
        append(&mut dns.searches, config.searches.as_deref());
        let given = config.options.iter().flatten().filter_map(|o| Some((o.name.as_deref()?, o.value.as_deref())));
        dns.options = options(&dns.options, given);
    }
    limit(&mut dns, &mut warnings);
    (dns, warnings)
}

fn clustered(pod: &Pod, node: &NodeDns, policy: &str, warnings: &mut Vec<(&'static str, String)>) -> Dns {
    if node.cluster.is_empty() {
        warnings.push((
            "MissingClusterDNS",
            format!("kubelet does not have ClusterDNS IP configured and cannot create Pod using {policy:?} policy. Falling back to \"Default\" policy."),
        ));
        return node.host.clone();
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let domain = &node.domain;
    let mut searches = Vec::new();
    if !domain.is_empty() {
        searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    }
    append(&mut searches, Some(&node.host.searches));
    Dns { servers: node.cluster.clone(), searches, options: vec!["ndots:5".into()] }
}

fn append(list: &mut Vec<String>, more: Option<&[String]>) {
    for item in more.unwrap_or_default() {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// Options by name: the pod's stand in for the policy's.
fn options<'a>(base: &'a [String], given: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Vec<String> {
    let split = |o: &'a String| o.split_once(':').map_or((o.as_str(), None), |(name, value)| (name, Some(value)));
    let merged: BTreeMap<&str, Option<&str>> = base.iter().map(split).chain(given).collect();
    merged.into_iter().map(|(name, value)| value.map_or(name.to_owned(), |v| format!("{name}:{v}"))).collect()
}

fn limit(dns: &mut Dns, warnings: &mut Vec<(&'static str, String)>) {
    if dns.servers.len() > SERVERS {
        dns.servers.truncate(SERVERS);
        let applied = dns.servers.join(" ");
        warnings.push(("DNSConfigForming", format!("Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {applied}")));
    }
    let before = dns.searches.len();
    dns.searches.truncate(SEARCHES);
    while dns.searches.join(" ").len() > SEARCH_CHARACTERS {
        dns.searches.pop();
    }
    if dns.searches.len() < before {
        let applied = dns.searches.join(" ");
        warnings.push(("DNSConfigForming", format!("Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {applied}")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value, cluster: &[&str]) -> (Dns, Vec<(&'static str, String)>) {
        let pod = serde_json::from_value(json!({"metadata": {"namespace": "n"}, "spec": spec})).unwrap();
        let host = Dns::parse("# own\nnameserver 9.9.9.9\nsearch a.example. .\noptions rotate timeout:1\n");
        dns(&pod, &NodeDns { cluster: cluster.iter().map(|s| (*s).to_owned()).collect(), domain: "c.l".into(), host })
    }

    #[test]
    fn policies() {
        let (dns, warnings) = of(json!({"containers": []}), &["10.96.0.10"]);
        assert_eq!(dns.servers, ["10.96.0.10"]);
        assert_eq!(dns.searches, ["n.svc.c.l", "svc.c.l", "c.l", "a.example"]);
        assert_eq!(dns.options, ["ndots:5"]);
        assert!(warnings.is_empty());

        let (dns, _) = of(json!({"containers": [], "hostNetwork": true}), &["10.96.0.10"]);
        assert_eq!((dns.servers, dns.options), (vec!["9.9.9.9".to_owned()], vec!["rotate".to_owned(), "timeout:1".into()]));
        let (dns, _) = of(json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), &["10.96.0.10"]);
        assert_eq!(dns.servers, ["10.96.0.10"]);

        let (dns, warnings) = of(json!({"containers": []}), &[]);
        assert_eq!(dns.servers, ["9.9.9.9"]);
        assert_eq!(warnings[0].0, "MissingClusterDNS");
    }

    #[test]
    fn config_is_added_and_limited() {
        let config = json!({"nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3"], "searches": ["x"], "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}]});
        let (dns, warnings) = of(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": config}), &["10.96.0.10"]);
        assert_eq!((dns.servers.len(), warnings.len()), (3, 0));
        assert_eq!(dns.options, ["edns0", "ndots:1"]);
        let (dns, warnings) = of(json!({"containers": [], "dnsConfig": config}), &["10.96.0.10"]);
        assert_eq!(dns.servers, ["10.96.0.10", "1.1.1.1", "2.2.2.2"]);
        assert_eq!(dns.options, ["edns0", "ndots:1"]);
        assert_eq!(warnings[0].0, "DNSConfigForming");
    }
}
