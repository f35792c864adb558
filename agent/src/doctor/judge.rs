//! From what was seen to findings. Pure.

use std::net::IpAddr;
use std::path::PathBuf;

use cri::v1::StatusResponse;
use k8s_openapi::api::core::v1::{Node, NodeSpec};
use pod::resolve::DnsConfig;

use super::Finding;
use crate::config::NodeSettings;
use crate::join::JoinError;
use crate::network::BRIDGE;
use crate::runtime_info::RuntimeInfo;

const DAY: i64 = 86_400;
/// Certificates live for a year and are renewed after 70 to 90 % of that: one with less than this left was not.
const LATE: i64 = 14 * DAY;
/// Share of free disk below which kubelets evict pods by default, in percent.
const LITTLE_DISK: u64 = 10;
pub(super) const REJOIN: &str = "run `master token create --print-join-command` on the master (a stock one: kubeadm token create --print-join-command) and what it prints \
                      here, beginning with `agent join`: the node keeps its name and settings, and pods go on running";

/// A certificate that the agent renews by itself. Times are seconds since 1970.
pub(super) fn certificate(subject: &'static str, validity: Option<(i64, i64)>, now: i64) -> Finding {
    let Some((from, until)) = validity else {
        return Finding::fault(subject, "there is none", REJOIN);
    };
    if now < from {
        return Finding::fault(subject, "not valid yet by this machine's clock", "set the clock (timedatectl, chrony)");
    }
    let left = until.saturating_sub(now);
    let date = jiff::Timestamp::from_second(until).map(|at| format!(", until {at}")).unwrap_or_default();
    let remaining = format!("valid for another {}{date}", span(left));
    // Short-lived ones are renewed as late as their lifetime says.
    let late = LATE.min(until.saturating_sub(from) / 20);
    match left {
        ..=0 => Finding::fault(subject, format!("expired {} ago{}", span(-left), date.replace("until", "at")), REJOIN),
        left if left < late => Finding::warning(
            subject,
            format!("{remaining}, and not renewed"),
            "journalctl -u agent says why; on the master: kubectl get certificatesigningrequests",
        ),
        _ => Finding::ok(subject, remaining),
    }
}

/// A duration in words; certificates of tests live for minutes.
fn span(seconds: i64) -> String {
    let (number, unit) = match seconds {
        ..120 => (seconds, "seconds"),
        120..7200 => (seconds / 60, "minutes"),
        7200..172_800 => (seconds / 3600, "hours"),
        172_800.. => (seconds / DAY, "days"),
    };
    format!("{number} {unit}")
}

/// The runtime's answer to a Status.
pub(super) fn runtime(answer: Result<StatusResponse, String>, endpoint: &str) -> Vec<Finding> {
    let status = match answer {
        Ok(answer) => answer.status.unwrap_or_default(),
        Err(error) => {
            let message = format!("{endpoint}: {error}");
            return vec![Finding::fault("runtime", message, "systemctl start containerd; journalctl -u containerd")];
        }
    };
    let condition = |subject, name: &str, remedy: &str| match status.conditions.iter().find(|c| c.r#type == name) {
        Some(condition) if condition.status => Finding::ok(subject, name),
        Some(condition) => Finding::fault(subject, format!("{}: {}", condition.reason, condition.message), remedy),
        None => Finding::fault(subject, format!("does not say {name}"), remedy),
    };
    vec![
        condition("runtime", "RuntimeReady", "journalctl -u containerd"),
        condition("pod network", "NetworkReady", "systemctl restart agent writes the CNI configuration anew"),
    ]
}

/// The Node as the API server has it.
pub(super) fn node(name: &str, answer: Result<Node, String>) -> Vec<Finding> {
    let node = match answer {
        Ok(node) => node,
        Err(error) => {
            // rustls' words for a CA that is not ours.
            let remedy = if error.contains("CertificateExpired") {
                REJOIN.to_owned()
            } else if error.contains("UnknownIssuer") {
                format!(
                    "it has another CA than the one that this node knows (it was replaced while the node was away): {REJOIN}"
                )
            } else {
                "is the master up, and its port reachable from here? Pods go on running meanwhile".to_owned()
            };
            return vec![Finding::fault("API server", error, remedy)];
        }
    };
    let mut findings = vec![Finding::ok("API server", "answers")];
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    findings.push(match conditions.iter().find(|c| c.type_ == "Ready") {
        Some(ready) if ready.status == "True" => Finding::ok("node", format!("{name} is Ready")),
        Some(ready) => {
            let message = ready.message.clone().unwrap_or_default();
            Finding::fault(
                "node",
                format!("{name} is not Ready: {message}"),
                "systemctl status agent; journalctl -u agent",
            )
        }
        None => Finding::fault("node", format!("{name} says nothing of being Ready"), "systemctl start agent"),
    });
    let pressures = conditions.iter().filter(|c| c.type_.ends_with("Pressure") && c.status == "True");
    findings.extend(pressures.map(|c| {
        let remedy = "free some: crictl rmi --prune, or delete pods; until then none are started here";
        Finding::warning("node", format!("{}: {}", c.type_, c.message.clone().unwrap_or_default()), remedy)
    }));
    findings.extend(cordoned(name, node.spec.as_ref()));
    findings
}

/// A node that gets no pods.
pub(crate) fn cordoned(name: &str, spec: Option<&NodeSpec>) -> Option<Finding> {
    let is_cordoned = spec?.unschedulable == Some(true);
    is_cordoned
        .then(|| Finding::warning("node", "is cordoned: new pods go elsewhere", format!("kubectl uncordon {name}")))
}

/// The clocks.
pub(super) fn clock(answer: Result<(), JoinError>) -> Option<Finding> {
    match answer {
        Ok(()) => Some(Finding::ok("clock", "as the API server's")),
        Err(error @ (JoinError::Skew { .. } | JoinError::Clock { .. })) => {
            Some(Finding::fault("clock", error.to_string(), "set the clock (timedatectl, chrony)"))
        }
        // Of the API server itself is said elsewhere.
        Err(_) => None,
    }
}

/// A disk's free and whole size, in bytes.
pub(super) fn disk(free: u64, size: u64) -> Finding {
    let message = format!("{} MiB of {} MiB free", free >> 20, size >> 20);
    if free.saturating_mul(100) < size.saturating_mul(LITTLE_DISK) {
        return Finding::warning("disk", message, "free some: pods are evicted when it is full; crictl rmi --prune");
    }
    Finding::ok("disk", message)
}

/// A setting of the kernel's that must be 1.
pub(super) fn forwarding(value: &str) -> Finding {
    match value.trim() {
        "1" => Finding::ok("forwarding", "net.ipv4.ip_forward = 1"),
        other => Finding::fault(
            "forwarding",
            format!("net.ipv4.ip_forward = {other}: pods reach nothing outside of this machine"),
            "something has turned it off: look in /etc/sysctl.d; systemctl restart agent turns it on",
        ),
    }
}

/// The same, of the packets between pods of this node; `None` where the kernel has no such setting.
pub(super) fn bridged(value: Option<&str>) -> Finding {
    const NAME: &str = "bridged packets";
    const EFFECT: &str = "pods do not reach Services whose pod is on this node";
    match value.map(str::trim) {
        Some("1") => Finding::ok(NAME, "net.bridge.bridge-nf-call-iptables = 1"),
        Some(other) => Finding::fault(
            NAME,
            format!("net.bridge.bridge-nf-call-iptables = {other}: {EFFECT}"),
            "something has turned it off: look in /etc/sysctl.d; systemctl restart agent turns it on",
        ),
        None => Finding::fault(
            NAME,
            format!("br_netfilter is not loaded: {EFFECT}"),
            "modprobe br_netfilter; systemctl restart agent",
        ),
    }
}

/// A filter of somebody else's, `FAMILY TABLE CHAIN`, that drops pods' packets: what our own table accepts counts only there.
pub(crate) fn closed(chain: &str) -> Finding {
    let message = format!("{chain} drops what it does not accept, and no rule of that table names {BRIDGE}");
    let remedy = match chain {
        "ip filter FORWARD" | "ip6 filter FORWARD" => {
            let program = if chain.starts_with("ip6") { "ip6tables" } else { "iptables" };
            format!(
                "{program} -I FORWARD -i {BRIDGE} -j ACCEPT; {program} -I FORWARD -o {BRIDGE} -j ACCEPT; to keep it: in DOCKER-USER with Docker, \
                 by `ufw route allow in on {BRIDGE}` and `… out on {BRIDGE}` with ufw"
            )
        }
        _ => format!(
            "nft insert rule {chain} iifname {BRIDGE} accept; nft insert rule {chain} oifname {BRIDGE} accept; to keep it: in /etc/nftables.conf"
        ),
    };
    Finding::warning("firewall", message, remedy)
}

/// The servers that pods with the machine's DNS ask, CoreDNS among them.
pub(super) fn dns(answer: Result<Option<DnsConfig>, String>) -> Option<Finding> {
    const NAME: &str = "DNS of the machine";
    const REMEDY: &str =
        "have resolvConf name a file with servers that pods reach (agent.conf.d); systemctl restart agent";
    let config = match answer {
        Ok(config) => config?,
        Err(error) => return Some(Finding::fault(NAME, format!("{error}: no pod is started"), REMEDY)),
    };
    let servers = config.servers.join(", ");
    let is_local = |server: &String| server.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    Some(if config.servers.iter().all(is_local) {
        let message = format!("[{servers}]: a pod with dnsPolicy Default, as CoreDNS has, would ask itself");
        Finding::warning(NAME, message, REMEDY)
    } else {
        Finding::ok(NAME, servers)
    })
}

/// The network's configuration, and whether it is there, as the runtime sees it.
pub(super) fn cni_configuration(file: (String, bool), node: &NodeSettings, info: &RuntimeInfo) -> Finding {
    const NAME: &str = "CNI configuration";
    let remedy = "the agent writes it once the node has a podCIDR: systemctl restart agent";
    let named = node.cni_conf_dir.as_ref().map(|named| ("cniConfDir", named, info.cni_conf_dir.iter().collect()));
    elsewhere(NAME, named).unwrap_or_else(|| is_there(NAME, file, remedy))
}

/// Likewise its plugins.
pub(super) fn cni_plugins(file: (String, bool), node: &NodeSettings, info: &RuntimeInfo) -> Finding {
    const NAME: &str = "CNI plugins";
    let named = node.cni_bin_dir.as_ref().map(|named| ("cniBinDir", named, info.cni_bin_dirs.iter().collect()));
    elsewhere(NAME, named).unwrap_or_else(|| is_there(NAME, file, "systemctl restart agent puts it there"))
}

/// A folder that `node.yaml` names, where the runtime looks in others.
fn elsewhere(subject: &'static str, named: Option<(&str, &PathBuf, Vec<&PathBuf>)>) -> Option<Finding> {
    let (field, named, looked) = named?;
    let first = looked.first().filter(|_| !looked.contains(&named))?;
    let message =
        format!("node.yaml has {}, and the runtime looks in {}: new pods fail", named.display(), first.display());
    Some(Finding::fault(subject, message, format!("take {field} out of node.yaml; systemctl restart agent")))
}

fn is_there(subject: &'static str, (file, is): (String, bool), remedy: &str) -> Finding {
    if is { Finding::ok(subject, file) } else { Finding::fault(subject, format!("{file} is missing"), remedy) }
}

#[cfg(test)]
mod tests {
    use super::super::Severity::{Fault, Ok as Fine, Warning};
    use super::*;

    #[test]
    fn certificates_by_what_is_left_of_them() {
        let of = |from, until| certificate("client certificate", Some((from, until)), 1000 * DAY).severity;
        assert_eq!(of(900 * DAY, 1265 * DAY), Fine);
        assert_eq!(of(640 * DAY, 1005 * DAY), Warning);
        assert_eq!(of(600 * DAY, 999 * DAY), Fault);
        assert_eq!(of(1001 * DAY, 1100 * DAY), Fault);
        // Minutes of life.
        assert_eq!(of(1000 * DAY - 60, 1000 * DAY + 240), Fine);
        assert_eq!(certificate("client certificate", None, 0).severity, Fault);
        let expired = certificate("client certificate", Some((0, 1000)), 1090);
        assert_eq!(expired.message, "expired 90 seconds ago, at 1970-01-01T00:16:40Z");
        assert!(expired.remedy.unwrap().contains("master token create --print-join-command"));
    }

    #[test]
    fn a_silent_runtime_and_a_network_that_is_down() {
        assert_eq!(runtime(Err("connection refused".into()), "unix:///x")[0].severity, Fault);
        let answer: StatusResponse = StatusResponse {
            status: Some(cri::v1::RuntimeStatus {
                conditions: vec![
                    cri::v1::RuntimeCondition { r#type: "RuntimeReady".into(), status: true, ..Default::default() },
                    cri::v1::RuntimeCondition { r#type: "NetworkReady".into(), status: false, ..Default::default() },
                ],
            }),
            ..Default::default()
        };
        let severities: Vec<_> = runtime(Ok(answer), "unix:///x").iter().map(|f| f.severity).collect();
        assert_eq!(severities, [Fine, Fault]);
    }

    #[test]
    fn nodes() {
        let of = |value: serde_json::Value| {
            let findings = node("n", Ok(serde_json::from_value(value).unwrap()));
            findings.iter().map(|f| f.severity).collect::<Vec<_>>()
        };
        let condition = |kind: &str, status: &str| serde_json::json!({"type": kind, "status": status});
        let ready = serde_json::json!({"conditions": [condition("Ready", "True"), condition("DiskPressure", "True")]});
        assert_eq!(
            of(serde_json::json!({"status": ready, "spec": {"unschedulable": true}})),
            [Fine, Fine, Warning, Warning]
        );
        assert_eq!(of(serde_json::json!({"status": {"conditions": [condition("Ready", "False")]}})), [Fine, Fault]);
        assert_eq!(node("n", Err("refused".into()))[0].severity, Fault);
    }

    #[test]
    fn plugins_are_where_the_runtime_looks() {
        let node = crate::config::tests::minimal().node;
        let looks = |dirs: &[&str]| RuntimeInfo {
            cni_bin_dirs: dirs.iter().map(PathBuf::from).collect(),
            ..RuntimeInfo::default()
        };
        let of = |is, info| cni_plugins(("/b/bridge".into(), is), &node, &info);
        assert_eq!(of(true, looks(&["/opt/cni/bin", "/b"])).severity, Fine);
        assert_eq!(of(true, looks(&[])).severity, Fine, "it does not say");
        assert_eq!(of(false, looks(&["/b"])).message, "/b/bridge is missing");
        let moved = of(true, looks(&["/opt/cni/bin"]));
        assert_eq!(moved.message, "node.yaml has /b, and the runtime looks in /opt/cni/bin: new pods fail");
        assert_eq!(cni_configuration(("/n/x".into(), true), &node, &looks(&[])).severity, Fine);
    }

    #[test]
    fn pods_that_would_ask_themselves_for_names() {
        let of = |servers: &[&str]| {
            let servers = servers.iter().map(|&server| server.to_owned()).collect();
            dns(Ok(Some(DnsConfig { servers, ..DnsConfig::default() }))).unwrap().severity
        };
        assert_eq!([of(&["127.0.0.1", "::1"]), of(&[]), of(&["127.0.0.1", "192.0.2.1"])], [Warning, Warning, Fine]);
        assert_eq!(dns(Err("read /x".into())).unwrap().severity, Fault);
        assert_eq!(dns(Ok(None)), None);
    }

    #[test]
    fn a_filter_is_opened_by_the_program_that_made_it() {
        let remedy = |chain| closed(chain).remedy.unwrap();
        assert!(remedy("ip6 filter FORWARD").starts_with("ip6tables -I FORWARD -i keelson0 -j ACCEPT; "));
        assert!(
            remedy("inet filter forward").starts_with("nft insert rule inet filter forward iifname keelson0 accept; ")
        );
    }

    #[test]
    fn disk_and_forwarding() {
        assert_eq!(disk(20, 100).severity, Fine);
        assert_eq!(disk(9, 100).severity, Warning);
        assert_eq!(forwarding("1\n").severity, Fine);
        assert_eq!(forwarding("0\n").severity, Fault);
        assert_eq!(bridged(Some("1\n")).severity, Fine);
        assert_eq!([bridged(Some("0\n")), bridged(None)].map(|finding| finding.severity), [Fault, Fault]);
    }
}
