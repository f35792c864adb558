//! The node's four conditions, with kubelet's reasons and messages (pkg/kubelet/nodestatus/setters.go).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::eviction::Pressures;
use crate::eviction::threshold::Pressure;

/// What the conditions are computed from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Why the node is not ready, if it is not, in kubelet's words.
    pub not_ready: Vec<String>,
    /// What the node is short of, as eviction has it.
    pub pressures: Pressures,
}

/// A condition that changed, for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The event's reason: `NodeReady`, `NodeHasDiskPressure`, …
    pub reason: &'static str,
}

struct Words {
    pressure: Pressure,
    reasons: (&'static str, &'static str),
    messages: (&'static str, &'static str),
    events: (&'static str, &'static str),
}

/// Computes the conditions in upstream's order, with transition times taken over from `previous`, and says what changed.
#[must_use]
pub fn conditions(
    observed: &Observed,
    previous: &[NodeCondition],
    now: Timestamp,
) -> (Vec<NodeCondition>, Vec<Changed>) {
    let mut all = Vec::with_capacity(4);
    let mut changes = Vec::new();
    for words in WORDS {
        let (status, reason, message, event) = if observed.pressures.contains(&words.pressure) {
            ("True", words.reasons.0, words.messages.0, words.events.0)
        } else {
            ("False", words.reasons.1, words.messages.1, words.events.1)
        };
        let (condition, changed) = condition(words.pressure.condition(), status, (reason, message), previous, now);
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

/// With a pressure, and without.
const WORDS: [Words; 3] = [
    Words {
        pressure: Pressure::Memory,
        reasons: ("KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
        messages: ("kubelet has insufficient memory available", "kubelet has sufficient memory available"),
        events: ("NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
    },
    Words {
        pressure: Pressure::Disk,
        reasons: ("KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
        messages: ("kubelet has disk pressure", "kubelet has no disk pressure"),
        events: ("NodeHasDiskPressure", "NodeHasNoDiskPressure"),
    },
    Words {
        pressure: Pressure::Pid,
        reasons: ("KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
        messages: ("kubelet has insufficient PID available", "kubelet has sufficient PID available"),
        events: ("NodeHasInsufficientPID", "NodeHasSufficientPID"),
    },
];

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

    #[test]
    fn a_healthy_node_says_what_kubelet_says() {
        let (conditions, changes) = conditions(&Observed::default(), &[], at(10));
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
        let (first, _) = conditions(&Observed::default(), &[], at(10));
        let (second, changes) = conditions(&Observed::default(), &first, at(20));
        assert!(changes.is_empty());
        assert_eq!(second[3].last_transition_time, Some(Time(at(10))));
        assert_eq!(second[3].last_heartbeat_time, Some(Time(at(20))));
        let broken = Observed { not_ready: vec!["container runtime is down".into()], ..Observed::default() };
        let (third, changes) = conditions(&broken, &second, at(30));
        assert_eq!(changes, [Changed { reason: "NodeNotReady" }]);
        assert_eq!(third[3].last_transition_time, Some(Time(at(30))));
        assert_eq!(third[3].message.as_deref(), Some("container runtime is down"));
    }

    #[test]
    fn a_node_under_pressure_says_so() {
        let observed = Observed { pressures: [Pressure::Memory, Pressure::Disk].into(), ..Observed::default() };
        let (before, _) = conditions(&Observed::default(), &[], at(0));
        let (conditions, changes) = conditions(&observed, &before, at(1));
        let statuses: Vec<_> = conditions.iter().map(|condition| condition.status.as_str()).collect();
        assert_eq!(statuses, ["True", "True", "False", "True"]);
        let reasons: Vec<_> = changes.iter().map(|change| change.reason).collect();
        assert_eq!(reasons, ["NodeHasInsufficientMemory", "NodeHasDiskPressure"]);
    }

    #[test]
    fn several_causes_are_aggregated_as_apimachinery_does() {
        let observed = Observed { not_ready: vec!["a".into(), "b".into()], ..Observed::default() };
        let (conditions, _) = conditions(&observed, &[], at(0));
        assert_eq!(conditions[3].message.as_deref(), Some("[a, b]"));
    }
}
