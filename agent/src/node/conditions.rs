//! The node's four conditions, with kubelet's reasons and messages (pkg/kubelet/nodestatus/setters.go).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::facts::Filesystem;
use super::resources::threshold;
use crate::config::KubeletConfiguration;

/// What the conditions are computed from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Why the node is not ready, if it is not, in kubelet's words.
    pub not_ready: Vec<String>,
    /// Memory that is available, and all of it, in bytes.
    pub memory: (u64, u64),
    /// The filesystem of the data folder.
    pub nodefs: Option<Filesystem>,
    /// The filesystem of images.
    pub imagefs: Option<Filesystem>,
    /// Threads there are and may be.
    pub pids: Option<(u64, u64)>,
}

/// A condition that changed, for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The event's reason: `NodeReady`, `NodeHasDiskPressure`, …
    pub reason: &'static str,
}

struct Pressure {
    type_: &'static str,
    under: bool,
    reasons: (&'static str, &'static str),
    messages: (&'static str, &'static str),
    events: (&'static str, &'static str),
}

/// Computes the conditions in upstream's order, with transition times taken over from `previous`, and says what changed.
#[must_use]
pub fn conditions(
    observed: &Observed,
    config: &KubeletConfiguration,
    previous: &[NodeCondition],
    now: Timestamp,
) -> (Vec<NodeCondition>, Vec<Changed>) {
    let mut all = Vec::with_capacity(4);
    let mut changes = Vec::new();
    for pressure in pressures(observed, config) {
        let (status, reason, message, event) = if pressure.under {
            ("True", pressure.reasons.0, pressure.messages.0, pressure.events.0)
        } else {
            ("False", pressure.reasons.1, pressure.messages.1, pressure.events.1)
        };
        let (condition, changed) = condition(pressure.type_, status, (reason, message), previous, now);
        all.push(condition);
        if changed {
            changes.push(Changed { reason: event });
        }
    }
    let (ready, changed) = ready(observed, previous, now);
    if changed {
        changes.push(Changed { reason: if ready.status == "True" { "NodeReady" } else { "NodeNotReady" } });
    }
    all.push(ready);
    (all, changes)
}

fn ready(observed: &Observed, previous: &[NodeCondition], now: Timestamp) -> (NodeCondition, bool) {
    match observed.not_ready.as_slice() {
        [] => condition("Ready", "True", ("KubeletReady", "kubelet is posting ready status"), previous, now),
        [one] => condition("Ready", "False", ("KubeletNotReady", one), previous, now),
        // apimachinery's aggregate of errors.
        many => condition("Ready", "False", ("KubeletNotReady", &format!("[{}]", many.join(", "))), previous, now),
    }
}

fn pressures(observed: &Observed, config: &KubeletConfiguration) -> [Pressure; 3] {
    let (available, memory) = observed.memory;
    let short = |fs: Option<Filesystem>, bytes: &str, inodes: &str| {
        fs.is_some_and(|fs| {
            fs.available < threshold(config, bytes, fs.capacity)
                || (fs.inodes > 0 && fs.inodes_free < threshold(config, inodes, fs.inodes))
        })
    };
    let pids =
        observed.pids.is_some_and(|(used, max)| max.saturating_sub(used) < threshold(config, "pid.available", max));
    [
        Pressure {
            type_: "MemoryPressure",
            under: memory > 0 && available < threshold(config, "memory.available", memory),
            reasons: ("KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
            messages: ("kubelet has insufficient memory available", "kubelet has sufficient memory available"),
            events: ("NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        },
        Pressure {
            type_: "DiskPressure",
            under: short(observed.nodefs, "nodefs.available", "nodefs.inodesFree")
                || short(observed.imagefs, "imagefs.available", "imagefs.inodesFree"),
            reasons: ("KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
            messages: ("kubelet has disk pressure", "kubelet has no disk pressure"),
            events: ("NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        },
        Pressure {
            type_: "PIDPressure",
            under: pids,
            reasons: ("KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
            messages: ("kubelet has insufficient PID available", "kubelet has sufficient PID available"),
            events: ("NodeHasInsufficientPID", "NodeHasSufficientPID"),
        },
    ]
}

fn condition(
    type_: &str,
    status: &str,
    (reason, message): (&str, &str),
    previous: &[NodeCondition],
    now: Timestamp,
) -> (NodeCondition, bool) {
    // metav1.Time has seconds only; more would make every comparison with what comes back differ.
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let before = previous.iter().find(|c| c.type_ == type_);
    let changed = before.is_none_or(|c| c.status != status);
    let since = before.filter(|_| !changed).and_then(|c| c.last_transition_time.clone());
    let condition = NodeCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: since.or(Some(now)),
    };
    (condition, changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn healthy() -> Observed {
        let fs = Filesystem { capacity: 1000, available: 500, used: 500, inodes: 100, inodes_free: 50 };
        Observed {
            not_ready: vec![],
            memory: (8 << 30, 16 << 30),
            nodefs: Some(fs),
            imagefs: Some(fs),
            pids: Some((100, 32768)),
        }
    }

    #[test]
    fn a_healthy_node_says_what_kubelet_says() {
        let (conditions, changes) = conditions(&healthy(), &KubeletConfiguration::default(), &[], at(10));
        let said: Vec<_> = conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_deref().unwrap(), c.message.as_deref().unwrap()))
            .collect();
        assert_eq!(
            said,
            [
                ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ]
        );
        assert_eq!(changes.last().unwrap().reason, "NodeReady");
    }

    #[test]
    fn transition_times_stay_until_the_status_changes() {
        let config = KubeletConfiguration::default();
        let (first, _) = conditions(&healthy(), &config, &[], at(10));
        let (second, changes) = conditions(&healthy(), &config, &first, at(20));
        assert!(changes.is_empty());
        assert_eq!(second[3].last_transition_time, Some(Time(at(10))));
        assert_eq!(second[3].last_heartbeat_time, Some(Time(at(20))));
        let broken = Observed { not_ready: vec!["container runtime is down".into()], ..healthy() };
        let (third, changes) = conditions(&broken, &config, &second, at(30));
        assert_eq!(changes, [Changed { reason: "NodeNotReady" }]);
        assert_eq!(third[3].last_transition_time, Some(Time(at(30))));
        assert_eq!(third[3].message.as_deref(), Some("container runtime is down"));
    }

    #[test]
    fn pressure_begins_at_the_hard_thresholds() {
        let config = KubeletConfiguration::default();
        let full = Filesystem { capacity: 1000, available: 99, used: 901, inodes: 100, inodes_free: 50 };
        let observed = Observed { memory: (99 << 20, 16 << 30), nodefs: Some(full), ..healthy() };
        let (conditions, _) = conditions(&observed, &config, &[], at(0));
        assert_eq!((conditions[0].status.as_str(), conditions[1].status.as_str()), ("True", "True"));
        assert_eq!(conditions[2].status, "False");
    }

    #[test]
    fn several_causes_are_aggregated_as_apimachinery_does() {
        let observed = Observed { not_ready: vec!["a".into(), "b".into()], ..healthy() };
        let (conditions, _) = conditions(&observed, &KubeletConfiguration::default(), &[], at(0));
        assert_eq!(conditions[3].message.as_deref(), Some("[a, b]"));
    }
}
