//! From what was seen to findings. Pure.

use cri::v1::StatusResponse;
use k8s_openapi::api::core::v1::{Node, NodeSpec};

use super::Finding;
use crate::join::JoinError;

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
    fn disk_and_forwarding() {
        assert_eq!(disk(20, 100).severity, Fine);
        assert_eq!(disk(9, 100).severity, Warning);
        assert_eq!(forwarding("1\n").severity, Fine);
        assert_eq!(forwarding("0\n").severity, Fault);
        assert_eq!(bridged(Some("1\n")).severity, Fine);
        assert_eq!([bridged(Some("0\n")), bridged(None)].map(|finding| finding.severity), [Fault, Fault]);
    }
}
