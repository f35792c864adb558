use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::plan::{Eviction, is_to_be_emptied, labels, lost_conditions, ready_status, taints};
use super::zones::{Shift, Turn, Zones, place, zone_of};
use super::{Caches, Controller, Recorder, Shared, WorkQueue, observe_nodes};
use crate::fake_api::FakeApi;

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
    let not_ready = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"});
    let pressed = json!([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]);
    let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
    let table = [
        (ready("True"), json!({}), Eviction::Hold, None),
        (
            ready("False"),
            json!({"taints": [{"key": "mine", "effect": "NoExecute"}]}),
            Eviction::Begin,
            Some(vec![
                "mine:NoExecute",
                "node.kubernetes.io/not-ready:NoSchedule",
                "node.kubernetes.io/not-ready:NoExecute",
            ]),
        ),
        // It is not its turn.
        (ready("False"), json!({}), Eviction::Hold, Some(vec!["node.kubernetes.io/not-ready:NoSchedule"])),
        // One taint follows the other at once.
        (
            ready("Unknown"),
            json!({"taints": [not_ready]}),
            Eviction::Hold,
            Some(vec!["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]),
        ),
        // All nodes lost: nobody is evicted.
        (
            ready("Unknown"),
            json!({"taints": [not_ready]}),
            Eviction::Stop,
            Some(vec!["node.kubernetes.io/unreachable:NoSchedule"]),
        ),
        (
            pressed,
            json!({"unschedulable": true}),
            Eviction::Hold,
            Some(vec!["node.kubernetes.io/disk-pressure:NoSchedule", "node.kubernetes.io/unschedulable:NoSchedule"]),
        ),
        (
            ready("True"),
            json!({"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}),
            Eviction::Hold,
            Some(vec![]),
        ),
        // Nobody has said anything about it yet.
        (json!([]), json!({}), Eviction::Begin, None),
    ];
    for (conditions, spec, eviction, expected) in table {
        let mut node = node(conditions, spec);
        let got = taints(&node, eviction, now());
        let expected: Option<Vec<String>> = expected.map(|all| all.into_iter().map(str::to_owned).collect());
        assert_eq!(got.as_deref().map(shape), expected, "{node:?}");
        if let Some(got) = got {
            node.spec.as_mut().unwrap().taints = Some(got);
            assert_eq!(taints(&node, eviction, now()), None, "settled");
        }
    }
}

#[test]
fn only_a_node_without_the_taint_is_to_be_emptied() {
    let tainted = |key: &str| json!({"taints": [{"key": key, "effect": "NoExecute"}]});
    let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
    let table = [
        (ready("Unknown"), json!({}), true),
        (ready("False"), tainted("mine"), true),
        (ready("False"), tainted("node.kubernetes.io/unreachable"), false),
        (ready("True"), json!({}), false),
        (json!([]), json!({}), false),
    ];
    for (conditions, spec, expected) in table {
        let node = node(conditions, spec);
        assert_eq!(is_to_be_emptied(&node), expected, "{node:?}");
    }
}

#[test]
fn old_labels_follow_the_new_ones() {
    let mut node = node(json!([]), json!({}));
    assert!(labels(&node).is_empty());
    let known = [("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "arm64"), ("beta.kubernetes.io/arch", "amd64")];
    node.metadata.labels = Some(known.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let set: Vec<_> = labels(&node).into_iter().collect();
    assert_eq!(set, [("beta.kubernetes.io/arch", "arm64"), ("beta.kubernetes.io/os", "linux")]);
}

/// A cluster of `ready` and `lost` nodes in one zone, called `r0`, `l0` and so on.
fn cluster(ready: usize, lost: usize, now: Instant) -> Zones {
    let mut zones = Zones::default();
    for (letter, count, status) in [("r", ready, "True"), ("l", lost, "Unknown")] {
        for number in 0..count {
            zones.put(&format!("{letter}{number}"), place(&placed("z", status)), now);
        }
    }
    zones
}

fn placed(zone: &str, status: &str) -> Node {
    let mut node = node(json!([{"type": "Ready", "status": status}]), json!({}));
    node.metadata.labels = Some([("topology.kubernetes.io/zone".to_owned(), zone.to_owned())].into());
    node
}

fn ask(zones: &mut Zones, node: &str, zone: &str, now: Instant) -> Turn {
    zones.turn(node, zone_of(&placed(zone, "Unknown")), now)
}

#[tokio::test(start_paused = true)]
async fn nodes_of_a_zone_are_emptied_one_every_ten_seconds_in_their_order() {
    let start = Instant::now();
    let later = |seconds| start + Duration::from_secs(seconds);
    let mut zones = cluster(9, 2, start - Duration::from_secs(60));
    assert_eq!(ask(&mut zones, "l0", "z", start), Turn::Now);
    assert_eq!(ask(&mut zones, "l1", "z", start), Turn::After(Duration::from_secs(10)));
    assert_eq!(ask(&mut zones, "l0", "z", start), Turn::Now, "it stays its turn until the taint is there");
    zones.leave("l0");
    zones.put("r0", place(&placed("z", "False")), start);
    assert_eq!(ask(&mut zones, "r0", "z", later(11)), Turn::After(Duration::from_millis(100)), "behind l1");
    assert_eq!(ask(&mut zones, "l1", "z", later(11)), Turn::Now);
    assert_eq!(ask(&mut zones, "r0", "z", later(12)), Turn::After(Duration::from_secs(9)));
    // A node that is well again is in nobody's way.
    assert_eq!(ask(&mut zones, "l2", "z", later(12)), Turn::After(Duration::from_secs(9)));
    zones.leave("r0");
    assert_eq!(ask(&mut zones, "l2", "z", later(21)), Turn::Now);
}

#[tokio::test(start_paused = true)]
async fn where_much_of_a_zone_is_lost_nodes_are_emptied_slowly_or_not_at_all() {
    let start = Instant::now();
    let before = start - Duration::from_secs(60);
    let first = Turn::Now;
    // Two lost nodes are never much; three are, from 55 percent on.
    let table = [
        (1, 2, first),
        (3, 3, first),
        (2, 3, Turn::Never),
        (9, 11, Turn::Never),
        (10, 11, first),
        (15, 35, Turn::Never),
    ];
    for (ready, lost, expected) in table {
        assert_eq!(ask(&mut cluster(ready, lost, before), "l0", "z", start), expected, "{ready} ready, {lost} lost");
    }
    // More than fifty nodes.
    let mut large = cluster(15, 36, start - Duration::from_secs(200));
    assert_eq!(ask(&mut large, "l0", "z", start), Turn::Now);
    assert_eq!(ask(&mut large, "l1", "z", start), Turn::After(Duration::from_secs(100)));
    // Enough of them are back: from now on as ever.
    for number in 2..12 {
        large.put(&format!("l{number}"), place(&placed("z", "True")), start);
    }
    assert_eq!(ask(&mut large, "l1", "z", start), Turn::After(Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn when_all_nodes_are_lost_none_is_emptied() {
    let start = Instant::now();
    let mut zones = Zones::default();
    assert!(!zones.is_cut_off(), "there is no node");
    zones.put("a", place(&placed("x", "True")), start);
    zones.put("b", place(&placed("y", "True")), start);
    assert_eq!(zones.put("b", place(&placed("y", "Unknown")), start), Shift::Rates);
    assert_eq!(ask(&mut zones, "b", "y", start + Duration::from_secs(20)), Turn::Now, "one zone as a whole");
    assert_eq!(zones.put("a", place(&placed("x", "Unknown")), start), Shift::Rates);
    assert!(zones.is_cut_off());
    assert_eq!(ask(&mut zones, "a", "x", start + Duration::from_secs(20)), Turn::Never);
    // Nodes that say nothing about their zone do not count as contact.
    let mut excluded = placed("x", "True");
    excluded.metadata.labels.as_mut().unwrap().insert("node.kubernetes.io/exclude-disruption".into(), String::new());
    assert_eq!(zones.put("c", place(&excluded), start), Shift::Nothing);
    assert!(zones.is_cut_off());
    // One is back: the other has a while to follow.
    let back = start + Duration::from_secs(60);
    assert_eq!(zones.put("a", place(&placed("x", "True")), back), Shift::BackInContact);
    assert_eq!(ask(&mut zones, "b", "y", back), Turn::After(Duration::from_secs(10)));
    // The last ready node is deleted.
    assert_eq!(zones.put("a", None, back), Shift::Rates);
    assert!(zones.is_cut_off());
}

#[tokio::test(start_paused = true)]
async fn while_nothing_is_heard_no_node_is_emptied() {
    let api = FakeApi::new("1");
    let caches = Caches::default();
    let shared = Arc::new(Shared::default());
    let (recorder, _events) = Recorder::new(api.client(), "test");
    observe_nodes(&caches, &WorkQueue::new(), &shared, recorder.clone());
    let apply = |name: &str, status: &str, version: &str| {
        let kinds = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
        let mut node = node(kinds.map(|kind| json!({ "type": kind, "status": status })).into(), json!({}));
        node.metadata.name = Some(name.to_owned());
        node.metadata.resource_version = Some(version.to_owned());
        caches.nodes.apply(node);
    };
    for name in ["a", "b", "c"] {
        apply(name, "True", "1");
        shared.heard.now(name);
    }
    let grace = Duration::from_secs(40);
    let controller =
        Controller { client: api.client(), caches: caches.clone(), recorder, shared: shared.clone(), grace };
    let taints = |node: &str| api.body(&format!("PATCH /api/v1/nodes/{node}"))["spec"]["taints"].to_string();
    // Two are heard of some seconds longer, and then nobody is.
    tokio::time::advance(Duration::from_secs(8)).await;
    ["b", "c"].iter().for_each(|name| shared.heard.now(name));
    tokio::time::advance(Duration::from_secs(33)).await;
    controller.reconcile("a").await.unwrap();
    assert!(api.taken().contains(&"PATCH /api/v1/nodes/a/status".to_owned()), "{:?}", api.taken());
    assert!(taints("a").contains("NoSchedule") && !taints("a").contains("NoExecute"), "{}", taints("a"));
    // Here is another who is heard of: it is that node, whose turn stays when the write comes late.
    shared.heard.now("b");
    let api = FakeApi::new("1");
    apply("a", "Unknown", "2");
    let controller = Controller { client: api.client(), ..controller };
    let _ = controller.reconcile("a").await;
    apply("a", "Unknown", "1");
    controller.reconcile("a").await.unwrap();
    assert!(api.body("PATCH /api/v1/nodes/a")["spec"]["taints"].to_string().contains("NoExecute"));
}
