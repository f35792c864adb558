//! Which sysctls pods may set (pkg/kubelet/sysctl): those that are safe, and those that the administrator allowed; none
//! in a namespace that the pod shares with the node.

use std::fmt;

use api::pod::SAFE_SYSCTLS;
use k8s_openapi::api::core::v1::Pod;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Ipc { "IPC" } else { "Net" })
    }
}

/// The namespace that a sysctl, or all with a prefix, belong to.
fn namespace(name: &str) -> Option<Namespace> {
    if name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix))
    {
        Some(Namespace::Ipc)
    } else {
        name.starts_with("net.").then_some(Namespace::Net)
    }
}

/// Whether `allowedUnsafeSysctls` may name a pattern.
///
/// # Errors
/// A sysctl that is the whole machine's: no pod may have it.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    let name = pod::resolve::dotted(pattern);
    match namespace(name.strip_suffix('*').unwrap_or(&name)) {
        Some(_) => Ok(()),
        None => Err(format!("the sysctl {pattern:?} is not known to be namespaced")),
    }
}

/// Why a pod's sysctls are refused (`SysctlForbidden`), if they are; `allowed` is `allowedUnsafeSysctls`.
#[must_use]
pub fn forbidden(pod: &Pod, allowed: &[String]) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let shares = |namespace| match namespace {
        Namespace::Ipc => spec.host_ipc.unwrap_or(false),
        Namespace::Net => spec.host_network.unwrap_or(false),
    };
    let names = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    names.map(|sysctl| pod::resolve::dotted(&sysctl.name)).find_map(|name| {
        let problem = match namespace(&name).filter(|_| is_allowed(&name, allowed)) {
            None => format!("{name:?} not allowlisted"),
            Some(namespace) if shares(namespace) => format!("{name:?} not allowed with host {namespace} enabled"),
            Some(_) => return None,
        };
        Some(format!("forbidden sysctl: {problem}"))
    })
}

fn is_allowed(name: &str, allowed: &[String]) -> bool {
    SAFE_SYSCTLS.contains(&name)
        || allowed.iter().map(|pattern| pod::resolve::dotted(pattern)).any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(name: &str, host: &str, allowed: &[&str]) -> Option<String> {
        let mut spec = json!({"containers": [], "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        if !host.is_empty() {
            spec[host] = json!(true);
        }
        let allowed: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        forbidden(&serde_json::from_value(json!({"spec": spec})).unwrap(), &allowed)
    }

    #[test]
    fn what_is_safe_or_allowed_is_taken() {
        for name in ["net.ipv4.tcp_syncookies", "net/ipv4/tcp_rmem", "kernel.shm_rmid_forced"] {
            assert_eq!(check(name, "", &[]), None, "{name}");
        }
        assert_eq!(check("net.core.somaxconn", "", &["net.core.*"]), None);
        assert_eq!(check("net/core/somaxconn", "", &["net.core.somaxconn"]), None);
        assert_eq!(check("kernel.msgmax", "hostNetwork", &["kernel.msg*"]), None);
        assert_eq!(forbidden(&Pod::default(), &[]), None);
    }

    #[test]
    fn everything_else_is_refused_in_kubelets_words() {
        let not_listed = |name: &str| Some(format!("forbidden sysctl: \"{name}\" not allowlisted"));
        assert_eq!(check("net.core.somaxconn", "", &["net.ipv4.*"]), not_listed("net.core.somaxconn"));
        assert_eq!(check("vm.swappiness", "", &["*"]), not_listed("vm.swappiness"));
        let shared =
            |name: &str, of: &str| Some(format!("forbidden sysctl: {name:?} not allowed with host {of} enabled"));
        assert_eq!(check("net.ipv4.tcp_rmem", "hostNetwork", &[]), shared("net.ipv4.tcp_rmem", "Net"));
        assert_eq!(check("kernel.sem", "hostIPC", &["kernel.sem"]), shared("kernel.sem", "IPC"));
    }

    #[test]
    fn patterns_are_of_namespaces_that_pods_have() {
        for good in ["net.*", "net.core.somaxconn", "kernel/shmmax", "fs.mqueue.*", "kernel.sem"] {
            assert_eq!(check_pattern(good), Ok(()));
        }
        for bad in ["*", "kernel.*", "vm.swappiness", ""] {
            assert!(check_pattern(bad).is_err(), "{bad}");
        }
    }
}
