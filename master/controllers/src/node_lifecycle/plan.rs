//! Conditions and taints of a node. Pure.

use std::sync::Arc;

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

/// Whether any node but this one is ready.
pub(crate) fn is_another_ready(all: &[Arc<Node>], name: &str) -> bool {
    all.iter().any(|node| node.metadata.name.as_deref() != Some(name) && ready_status(node) == "True")
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

/// The taints that the node should have, none when it has them. Taints of others are left alone.
///
/// While all nodes are lost no NoExecute taint is added and those there are taken off: then it is more likely that we
/// are cut off than that all nodes died (upstream: full disruption).
pub(crate) fn taints(node: &Node, ready: &str, all_lost: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let known = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    let by_readiness = match ready {
        "True" => None,
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    };
    if let Some(key) = by_readiness {
        wanted.push((key, "NoSchedule"));
        if !all_lost {
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
