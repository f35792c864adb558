//! Conditions and taints of a node. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Taint of a node whose kubelet says that it is not ready.
pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node that is not heard of.
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that a silent kubelet can no longer vouch for.
const KUBELET_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Conditions whose status True keeps new pods away.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// The status of the Ready condition: True, False or Unknown.
pub(crate) fn ready_status(node: &Node) -> &str {
    condition(node, "Ready").map_or("Unknown", |ready| ready.status.as_str())
}

/// Whether anybody has ever said if the node is ready.
pub(super) fn has_reported(node: &Node) -> bool {
    condition(node, "Ready").is_some()
}

/// When the kubelet last wrote the Ready condition, by its own account: only changes of it are looked at.
pub(crate) fn heartbeat(node: &Node) -> Option<Timestamp> {
    condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.as_ref()).map(|time| time.0)
}

/// The conditions to write for a lost node, none when they are written or the node is not lost.
pub(crate) fn lost_conditions(node: &Node, is_lost: bool, now: Timestamp) -> Option<Vec<NodeCondition>> {
    if !is_lost {
        return None;
    }
    let changed = KUBELET_CONDITIONS.iter().filter_map(|kind| match condition(node, kind) {
        Some(known) if known.status == "Unknown" => None,
        Some(known) => Some(NodeCondition {
            status: "Unknown".into(),
            reason: Some("NodeStatusUnknown".into()),
            message: Some("Kubelet stopped posting node status.".into()),
            last_transition_time: Some(Time(now)),
            ..known.clone()
        }),
        None => Some(NodeCondition {
            type_: (*kind).to_owned(),
            status: "Unknown".into(),
            reason: Some("NodeStatusNeverUpdated".into()),
            message: Some("Kubelet never posted node status.".into()),
            last_heartbeat_time: node.metadata.creation_timestamp.clone(),
            last_transition_time: Some(Time(now)),
        }),
    });
    let changed: Vec<NodeCondition> = changed.collect();
    (!changed.is_empty()).then_some(changed)
}

/// What is to become of the pods of a node that is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eviction {
    /// They leave, if they do not tolerate it.
    Begin,
    /// As before: none begins, and one that goes on goes on.
    Hold,
    /// None leaves.
    Stop,
}

/// Whether the node is still to be given the taint that makes its pods leave.
pub(super) fn is_to_be_emptied(node: &Node) -> bool {
    has_reported(node) && ready_status(node) != "True" && !taints_of(node).iter().any(empties)
}

fn empties(taint: &Taint) -> bool {
    taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE)
}

fn taints_of(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// The taints that the node should have, none when it has them. Taints of others are left alone.
pub(super) fn taints(node: &Node, eviction: Eviction, now: Timestamp) -> Option<Vec<Taint>> {
    let known = taints_of(node);
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    let by_readiness = match condition(node, "Ready").map(|ready| ready.status.as_str()) {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    };
    if let Some(key) = by_readiness {
        wanted.push((key, "NoSchedule"));
        // Of the two that make pods leave one follows the other without a pause.
        let goes_on = eviction == Eviction::Hold && known.iter().any(empties);
        if goes_on || eviction == Eviction::Begin {
            wanted.push((key, "NoExecute"));
        }
    }
    let pressed = PRESSURES.iter().filter(|(kind, _)| condition(node, kind).is_some_and(|one| one.status == "True"));
    wanted.extend(pressed.map(|(_, key)| (*key, "NoSchedule")));
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let is_ours = |taint: &Taint| is_managed(&taint.key, &taint.effect);
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> = known.iter().filter(|taint| !is_ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in &wanted {
        if !taints.iter().any(|taint| taint.key == *key && taint.effect == *effect) {
            taints.push(Taint {
                key: (*key).to_owned(),
                effect: (*effect).to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    (taints != known).then_some(taints)
}

fn is_managed(key: &str, effect: &str) -> bool {
    let by_readiness = key == NOT_READY || key == UNREACHABLE;
    let by_condition = key == UNSCHEDULABLE || PRESSURES.iter().any(|(_, taint)| *taint == key);
    (by_readiness && (effect == "NoSchedule" || effect == "NoExecute")) || (by_condition && effect == "NoSchedule")
}

/// Labels that old clients know, with those that they follow.
const OLD_LABELS: [(&str, &str); 2] =
    [("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch")];

/// The labels to set, so that the old ones say what the new ones do.
pub(super) fn labels(node: &Node) -> BTreeMap<&'static str, &str> {
    let label = |key: &str| node.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let pairs = OLD_LABELS.iter().filter_map(|(new, old)| Some((*old, label(new)?)));
    pairs.filter(|(old, value)| label(old) != Some(value)).collect()
}
