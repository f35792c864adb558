//! Hostname and domain of a pod, and its /etc/hosts (docs: "DNS for Services and Pods"; KEP-1797, KEP-4762).

use std::fmt::Write;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

/// The kernel's limit for a hostname.
const LONGEST: usize = 64;
/// Of a DNS label.
const LABEL: usize = 63;

/// How a pod is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// What `hostname` prints.
    pub hostname: String,
    /// The first word of its name.
    pub short: String,
    /// `SUBDOMAIN.NAMESPACE.svc.CLUSTER`, empty where the pod has no subdomain.
    pub domain: String,
}

/// The name that `setHostnameAsFQDN` asks for is too long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long ({LONGEST} characters is the max, {} characters requested)", .fqdn.len())]
pub struct HostnameError {
    fqdn: String,
}

/// The names of a pod with a network of its own.
///
/// # Errors
/// When its FQDN is to be the hostname and is too long for one.
pub fn names(pod: &Pod, cluster_domain: &str) -> Result<Names, HostnameError> {
    let spec = pod.spec.as_ref();
    let given = |text: Option<&String>| text.filter(|t| !t.is_empty()).cloned();
    if let Some(hostname) = given(spec.and_then(|s| s.hostname_override.as_ref())) {
        return Ok(Names { short: hostname.clone(), hostname, domain: String::new() });
    }
    let short = given(spec.and_then(|s| s.hostname.as_ref()))
        .unwrap_or_else(|| truncated(pod.metadata.name.as_deref().unwrap_or_default()));
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let domain = given(spec.and_then(|s| s.subdomain.as_ref()))
        .map(|sub| format!("{sub}.{namespace}.svc.{cluster_domain}"))
        .unwrap_or_default();
    let whole = spec.and_then(|s| s.set_hostname_as_fqdn).unwrap_or(false) && !domain.is_empty();
    let hostname = if whole { format!("{short}.{domain}") } else { short.clone() };
    if hostname.len() > LONGEST {
        return Err(HostnameError { fqdn: hostname });
    }
    Ok(Names { hostname, short, domain })
}

/// A pod's name may be longer than a label; what is cut must not end in a dash or dot.
fn truncated(name: &str) -> String {
    let cut: String = name.chars().take(LABEL).collect();
    if cut.len() < name.len() { cut.trim_end_matches(['-', '.']).to_owned() } else { cut }
}

/// The text of /etc/hosts of a pod with a network of its own; with `node_file`, of one in the node's network.
#[must_use]
pub fn hosts_file(pod: &Pod, names: &Names, ips: &[IpAddr], node_file: Option<&str>) -> String {
    let mut text = match node_file {
        Some(own) => format!("# Kubernetes-managed hosts file (host network).\n{own}"),
        None => own_hosts(names, ips),
    };
    let aliases = pod.spec.as_ref().and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"));
        }
    }
    text
}

fn own_hosts(names: &Names, ips: &[IpAddr]) -> String {
    let mut text = "# Kubernetes-managed hosts file.\n\
        127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\n\
        fe00::0\tip6-localnet\n\
        fe00::0\tip6-mcastprefix\n\
        fe00::1\tip6-allnodes\n\
        fe00::2\tip6-allrouters\n"
        .to_owned();
    for ip in ips {
        let _ = match names.domain.as_str() {
            "" => writeln!(text, "{ip}\t{}", names.short),
            domain => writeln!(text, "{ip}\t{}.{domain}\t{}", names.short, names.short),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, spec: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec})).unwrap()
    }

    #[test]
    fn names_follow_the_spec() {
        let of = |spec: Value| names(&pod("web-0", &spec), "cluster.local").unwrap();
        assert_eq!(of(json!({"containers": []})).hostname, "web-0");
        let sub = of(json!({"containers": [], "hostname": "h", "subdomain": "s"}));
        assert_eq!((sub.hostname.as_str(), sub.domain.as_str()), ("h", "s.n.svc.cluster.local"));
        let whole = of(json!({"containers": [], "subdomain": "s", "setHostnameAsFQDN": true}));
        assert_eq!((whole.hostname.as_str(), whole.short.as_str()), ("web-0.s.n.svc.cluster.local", "web-0"));
        let long = "x".repeat(62) + "-yz";
        assert_eq!(names(&pod(&long, &json!({"containers": []})), "c").unwrap().hostname, "x".repeat(62));
        let error = names(&pod(&long, &json!({"containers": [], "subdomain": "s", "setHostnameAsFQDN": true})), "c").unwrap_err();
        assert!(error.to_string().ends_with("is too long (64 characters is the max, 72 characters requested)"), "{error}");
    }

    #[test]
    fn hosts_files_are_those_of_a_kubelet() {
        let spec = json!({"containers": [], "subdomain": "s", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]});
        let pod = pod("p", &spec);
        let names = names(&pod, "cluster.local").unwrap();
        let text = hosts_file(&pod, &names, &["10.1.0.2".parse().unwrap()], None);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost"));
        assert!(text.ends_with("\n10.1.0.2\tp.s.n.svc.cluster.local\tp\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
        let host = hosts_file(&pod, &names, &[], Some("127.0.0.1 me\n"));
        assert!(host.starts_with("# Kubernetes-managed hosts file (host network).\n127.0.0.1 me\n\n# Entries"), "{host}");
    }
}
