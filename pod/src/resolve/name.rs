//! Hostname and `/etc/hosts`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostAlias, Pod, PodSpec};

/// Longest host name that the kernel keeps.
const MAX_HOSTNAME: usize = 64;
/// Longest DNS label.
const MAX_LABEL: usize = 63;

/// A host name that cannot be set. The text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long ({MAX_HOSTNAME} characters is the max, {length} characters requested)"
)]
pub struct HostnameError {
    /// The name.
    pub fqdn: String,
    /// Its length.
    pub length: usize,
}

/// The names of a pod: what the kernel is told, and the domain that the pod's own entry in `/etc/hosts` has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hostname {
    /// For the sandbox: the short name, or the full one with `setHostnameAsFQDN`.
    pub kernel: String,
    /// The short name.
    pub short: String,
    /// `{subdomain}.{namespace}.svc.{cluster domain}`; empty without a subdomain.
    pub domain: String,
}

/// The names of a pod.
///
/// # Errors
/// When `setHostnameAsFQDN` asks for a name that is too long.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> Result<Hostname, HostnameError> {
    let none = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&none);
    let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    if let Some(name) = given(&spec.hostname_override) {
        return Ok(Hostname { kernel: name.clone(), short: name, domain: String::new() });
    }
    let short = given(&spec.hostname).unwrap_or_else(|| {
        let name: String = pod.metadata.name.iter().flat_map(|name| name.chars()).take(MAX_LABEL).collect();
        name.trim_end_matches(['-', '.']).to_owned()
    });
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let domain = given(&spec.subdomain).map(|sub| format!("{sub}.{namespace}.svc.{cluster_domain}"));
    let mut kernel = short.clone();
    if let Some(domain) = domain.as_ref().filter(|_| spec.set_hostname_as_fqdn == Some(true)) {
        kernel = format!("{short}.{domain}");
        if kernel.len() > MAX_HOSTNAME {
            return Err(HostnameError { length: kernel.len(), fqdn: kernel });
        }
    }
    Ok(Hostname { kernel, short, domain: domain.unwrap_or_default() })
}

/// `/etc/hosts` of a pod with a network of its own.
#[must_use]
pub fn hosts_file(name: &Hostname, ips: &[IpAddr], aliases: &[HostAlias]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        let Hostname { short, domain, .. } = name;
        text.push_str(&if domain.is_empty() {
            format!("{ip}\t{short}\n")
        } else {
            format!("{ip}\t{short}.{domain}\t{short}\n")
        });
    }
    text.push_str(&alias_lines(aliases));
    text
}

/// `/etc/hosts` of a pod with host networking: the node's, and the pod's aliases.
#[must_use]
pub fn node_hosts_file(node: &str, aliases: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{node}{}", alias_lines(aliases))
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let line = |alias: &HostAlias| {
        format!("{}\t{}\n", alias.ip, alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t"))
    };
    format!("\n# Entries added by HostAliases.\n{}", aliases.iter().map(line).collect::<String>())
}
