//! Values of a pod that stages need, with all defaults filled in.

mod dns;
mod mounts;
mod name;
mod security;
#[cfg(test)]
mod tests;

pub use dns::{DnsConfig, DnsFacts, dns, missing_cluster_dns};
pub use mounts::{RecursiveReadOnlyError, recursive_read_only};
pub use name::{Hostname, HostnameError, hostname, hosts_file, node_hosts_file};
pub use security::{NonRootError, Security, security, verify_non_root};

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerPort, Pod, PodSpec};

/// A port of the node that leads to the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// On the node.
    pub host_port: i32,
    /// In the pod.
    pub container_port: i32,
    /// The node's address; empty for all.
    pub host_ip: String,
}

/// The `hostPort`s of a pod; none with host networking, where the containers bind them themselves.
#[must_use]
pub fn port_mappings(spec: &PodSpec) -> Vec<PortMapping> {
    if spec.host_network.unwrap_or(false) {
        return Vec::new();
    }
    let mapped = |port: &ContainerPort| {
        Some(PortMapping {
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            host_port: port.host_port.filter(|port| *port > 0)?,
            container_port: port.container_port,
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
    };
    api::pod::ports(spec).filter_map(mapped).collect()
}

/// The addresses of a pod among those of its sandbox: one of each family, first that of the node's first address (`sortPodIPs`).
#[must_use]
pub fn pod_ips(sandbox: &[IpAddr], node: &[IpAddr]) -> Vec<IpAddr> {
    let prefers_v4 = node.first().is_none_or(IpAddr::is_ipv4);
    let first_of = |v4: bool| sandbox.iter().find(|ip| ip.is_ipv4() == v4).copied();
    [prefers_v4, !prefers_v4].into_iter().filter_map(first_of).collect()
}

/// The sysctls of a pod, with dots between the parts of their names.
#[must_use]
pub fn sysctls(pod: &Pod) -> BTreeMap<String, String> {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let list = context.and_then(|context| context.sysctls.as_ref()).into_iter().flatten();
    list.map(|sysctl| (dotted(&sysctl.name), sysctl.value.clone())).collect()
}

/// The name of a sysctl with dots. It may be written with slashes between its parts; the dots in it then belong to the
/// parts.
#[must_use]
pub fn dotted(name: &str) -> String {
    match name.find(['.', '/']).and_then(|index| name.get(index..=index)) {
        Some("/") => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}
