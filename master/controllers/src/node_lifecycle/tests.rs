use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::{Value, json};

use super::plan::{is_another_ready, lost_conditions, ready_status, taints};

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn node(conditions: Value, spec: Value) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": "n", "creationTimestamp": "2025-01-01T00:00:00Z"},
        "spec": spec,
        "status": {"conditions": conditions},
    }))
    .unwrap()
}

fn shape(taints: &[Taint]) -> Vec<String> {
    taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
}

#[test]
fn a_lost_node_is_unknown_in_all_that_its_kubelet_vouched_for() {
    let ready = json!([{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "False"}]);
    let mut node = node(ready, json!({}));
    assert_eq!(lost_conditions(&node, false, now()), None);
    let changed = lost_conditions(&node, true, now()).unwrap();
    let words: Vec<_> = changed.iter().map(|one| (one.type_.as_str(), one.reason.as_deref().unwrap())).collect();
    assert_eq!(
        words,
        [
            ("Ready", "NodeStatusUnknown"),
            ("MemoryPressure", "NodeStatusNeverUpdated"),
            ("DiskPressure", "NodeStatusNeverUpdated"),
            ("PIDPressure", "NodeStatusNeverUpdated"),
        ]
    );
    assert_eq!(changed[0].message.as_deref(), Some("Kubelet stopped posting node status."));
    node.status.as_mut().unwrap().conditions = Some(changed);
    assert_eq!(ready_status(&node), "Unknown");
    assert_eq!(lost_conditions(&node, true, now()), None);
}

#[test]
fn conditions_become_taints_and_go_with_them() {
    let pressed = json!([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]);
    let table = [
        (json!([{"type": "Ready", "status": "True"}]), json!({}), false, None),
        (
            json!([{"type": "Ready", "status": "False"}]),
            json!({"taints": [{"key": "mine", "effect": "NoExecute"}]}),
            false,
            Some(vec![
                "mine:NoExecute",
                "node.kubernetes.io/not-ready:NoSchedule",
                "node.kubernetes.io/not-ready:NoExecute",
            ]),
        ),
        (
            json!([{"type": "Ready", "status": "Unknown"}]),
            json!({"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]}),
            false,
            Some(vec!["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]),
        ),
        // All nodes lost: nobody is evicted.
        (
            json!([{"type": "Ready", "status": "Unknown"}]),
            json!({}),
            true,
            Some(vec!["node.kubernetes.io/unreachable:NoSchedule"]),
        ),
        (
            pressed,
            json!({"unschedulable": true}),
            false,
            Some(vec!["node.kubernetes.io/disk-pressure:NoSchedule", "node.kubernetes.io/unschedulable:NoSchedule"]),
        ),
        (
            json!([{"type": "Ready", "status": "True"}]),
            json!({"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}),
            false,
            Some(vec![]),
        ),
    ];
    for (conditions, spec, all_lost, expected) in table {
        let mut node = node(conditions, spec);
        let got = taints(&node, ready_status(&node), all_lost, now());
        let expected: Option<Vec<String>> = expected.map(|all| all.into_iter().map(str::to_owned).collect());
        assert_eq!(got.as_deref().map(shape), expected, "{node:?}");
        if let Some(got) = got {
            node.spec.as_mut().unwrap().taints = Some(got);
            assert_eq!(taints(&node, ready_status(&node), all_lost, now()), None, "settled");
        }
    }
}

#[test]
fn one_node_that_is_ready_is_enough_for_all_others() {
    let named = |name: &str, status: &str| {
        let mut node = node(json!([{"type": "Ready", "status": status}]), json!({}));
        node.metadata.name = Some(name.into());
        Arc::new(node)
    };
    let all = [named("a", "True"), named("b", "Unknown"), named("c", "False")];
    assert!(is_another_ready(&all, "b"));
    assert!(!is_another_ready(&all, "a"));
}
