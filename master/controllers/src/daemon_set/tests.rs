use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use machinery::Recorder;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::pauses::Pauses;
use super::plan::{Facts, Plan, eligible, plan};
use super::pod::{pod_for, target, tolerations};
use super::status::status;
use super::{Caches, Controller, Mutex, PodControl, Retry};
use crate::fake_api::FakeApi;
use crate::pods;
use crate::revisions::of;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn set(strategy: Value, more: Value) -> DaemonSet {
    let mut pod = json!({"containers": [{"name": "c"}]});
    for (key, value) in more.as_object().unwrap() {
        pod[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": {"name": "d", "namespace": "ns", "uid": "set", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": pod}},
    }))
    .unwrap()
}

fn node(name: &str, more: Value) -> Arc<Node> {
    let mut value = json!({"metadata": {"name": name, "labels": {"disk": "ssd"}}, "spec": {}});
    for (key, part) in more.as_object().unwrap() {
        value[key] = part.clone();
    }
    Arc::new(serde_json::from_value(value).unwrap())
}

/// What the cluster makes of a pod that was created for a node.
fn run(set: &DaemonSet, node: &str, hash: &str, uid: usize, ready: bool) -> Arc<Pod> {
    let mut pod = pod_for(set, node, hash);
    assert_eq!(target(&pod), Some(node));
    pod.metadata.name = Some(format!("d-{uid}"));
    pod.metadata.uid = Some(uid.to_string());
    pod.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        now() + jiff::SignedDuration::from_secs(i64::try_from(uid).unwrap()),
    ));
    pod.spec.as_mut().unwrap().node_name = Some(node.into());
    pod.status = serde_json::from_value(json!({"phase": "Running",
        "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}))
    .unwrap();
    Arc::new(pod)
}

fn facts<'a>(set: &'a DaemonSet, nodes: &'a [Arc<Node>], pods: &'a [Arc<Pod>], hash: &'a str) -> Facts<'a> {
    Facts { set, nodes, pods, hash, now: now() }
}

#[test]
fn nodes_are_chosen_by_selector_affinity_and_taints() {
    let taint = |key: &str, effect: &str| json!({"spec": {"taints": [{"key": key, "effect": effect}]}});
    let table = [
        (json!({}), json!({}), (true, true)),
        (json!({"nodeSelector": {"disk": "hdd"}}), json!({}), (false, false)),
        (json!({"nodeName": "other"}), json!({}), (false, false)),
        (json!({}), taint("k", "NoSchedule"), (false, true)),
        (json!({}), taint("k", "NoExecute"), (false, false)),
        (json!({}), taint("k", "PreferNoSchedule"), (true, true)),
        // Every daemon pod tolerates these.
        (json!({}), taint("node.kubernetes.io/unschedulable", "NoSchedule"), (true, true)),
        (json!({}), taint("node.kubernetes.io/not-ready", "NoExecute"), (true, true)),
        (json!({"tolerations": [{"key": "k", "operator": "Exists"}]}), taint("k", "NoExecute"), (true, true)),
    ];
    for (template, of_node, expected) in table {
        let set = set(json!({"type": "OnDelete"}), template.clone());
        let got = eligible(&set, &tolerations(&set), &node("n", of_node.clone()));
        assert_eq!((got.run, got.go_on), expected, "{template} {of_node}");
    }
}

#[test]
fn one_pod_a_node_failed_ones_are_replaced_and_strangers_removed() {
    let set = set(json!({"type": "OnDelete"}), json!({}));
    let nodes = [
        node("a", json!({})),
        node("b", json!({})),
        node("c", json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}})),
    ];
    let mut failed = (*run(&set, "b", "h", 2, false)).clone();
    failed.status.as_mut().unwrap().phase = Some("Failed".into());
    let pods =
        [run(&set, "a", "h", 0, false), run(&set, "a", "h", 1, true), Arc::new(failed), run(&set, "c", "h", 3, true)];
    let plan = plan(&facts(&set, &nodes, &pods, "h"));
    assert!(plan.create.is_empty(), "the failed pod has to be gone first");
    let gone: BTreeSet<_> = plan.delete.iter().map(|pod| pod.metadata.uid.as_deref().unwrap()).collect();
    assert_eq!(gone, ["0", "2", "3"].into());
    assert_eq!(plan.failed.len(), 1);
    let status = status(&facts(&set, &nodes, &pods, "h"));
    assert_eq!(
        (status.desired_number_scheduled, status.current_number_scheduled, status.number_misscheduled),
        (2, 2, 1)
    );
}

#[test]
fn a_revision_is_stable_and_numbered_after_the_others() {
    let set_ = set(json!({}), json!({}));
    let first = of(&set_, &[]);
    assert_eq!((first.revision, of(&set_, &[Arc::new(first.clone())]).revision), (1, 1));
    let changed = set(json!({}), json!({"hostNetwork": true}));
    let second = of(&changed, &[Arc::new(first.clone())]);
    assert_eq!(second.revision, 2);
    assert_ne!(first.metadata.name, second.metadata.name);
    // Back to the first template: the same data, which gets the next number.
    assert_eq!(of(&set_, &[Arc::new(first), Arc::new(second)]).revision, 3);
}

#[test]
fn a_node_is_updated_when_its_old_pod_is_gone() {
    let set = set(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}), json!({}));
    let nodes = [node("a", json!({}))];
    let both = [run(&set, "a", "old", 0, true), run(&set, "a", "new", 1, false)];
    let counts = |pods: &[Arc<Pod>]| {
        let status = status(&facts(&set, &nodes, pods, "new"));
        (status.updated_number_scheduled, status.number_available)
    };
    assert_eq!(counts(&both), (None, Some(1)));
    assert_eq!(counts(&both[1..]), (Some(1), None));
}

proptest! {
    #[test]
    fn a_rolling_update_keeps_its_limits_and_ends(
        count in 1usize..9,
        unavailable in 0i32..4,
        surge in 0i32..4,
        starts in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}});
        let set = set(strategy, json!({}));
        let nodes: Vec<_> = (0..count).map(|number| node(&format!("n{number}"), json!({}))).collect();
        let mut pods: Vec<Arc<Pod>> = (0..count).map(|number| run(&set, &format!("n{number}"), "old", number, true)).collect();
        let allowed = if unavailable == 0 && surge == 0 { 1 } else { usize::try_from(unavailable).unwrap() };
        let mut next = count;
        let mut starts = starts.into_iter();
        for _ in 0..200 {
            let Plan { create, delete, .. } = plan(&facts(&set, &nodes, &pods, "new"));
            pods.retain(|pod| !delete.iter().any(|gone| gone.metadata.uid == pod.metadata.uid));
            for name in &create {
                next += 1;
                pods.push(run(&set, name, "new", next, false));
            }
            let down = nodes.iter().filter(|node| {
                !pods.iter().any(|pod| pods::node_name(pod) == node.metadata.name.as_deref() && pods::is_ready(pod))
            });
            prop_assert!(down.count() <= allowed);
            prop_assert!(pods.len() <= count + usize::try_from(surge).unwrap());
            let waiting: Vec<usize> = (0..pods.len()).filter(|one| !pods::is_ready(&pods[*one])).collect();
            if waiting.is_empty() && create.is_empty() && delete.is_empty() {
                break;
            }
            if !waiting.is_empty() {
                let one = waiting[starts.next().map_or(0, |index| index.index(waiting.len()))];
                let pod = &pods[one];
                let uid = pod.metadata.uid.as_ref().unwrap().parse().unwrap();
                pods[one] = run(&set, pods::node_name(pod).unwrap(), "new", uid, true);
            }
        }
        prop_assert_eq!(pods.len(), count);
        prop_assert!(pods.iter().all(|pod| super::pod::hash_of_pod(pod) == "new"));
    }
}

#[test]
fn a_node_that_refuses_pods_gets_them_ever_more_slowly() {
    let set = set(json!({"type": "RollingUpdate"}), json!({}));
    let nodes = [node("a", json!({}))];
    let mut failed = (*run(&set, "a", "h", 1, false)).clone();
    failed.status.as_mut().unwrap().phase = Some("Failed".into());
    let pods = [Arc::new(failed)];
    let mut pauses = Pauses::default();
    let mut at = |seconds: i64| {
        let mut plan = plan(&facts(&set, &nodes, &pods, "h"));
        pauses.hold(&set, &mut plan, now() + jiff::SignedDuration::from_secs(seconds));
        assert_eq!(plan.delete.len(), plan.failed.len());
        (plan.delete.len(), plan.look_again)
    };
    // The first goes at once, the next a second later, the one after that two seconds after it.
    assert_eq!([at(0), at(0), at(1), at(2), at(3)], [(1, None), (0, Some(1)), (1, None), (0, Some(1)), (1, None)]);
    assert_eq!([at(4), at(7)], [(0, Some(3)), (1, None)]);
}

const STATUS: &str = "PATCH /apis/apps/v1/namespaces/ns/daemonsets/d/status";

/// A controller of one set, version 1.
fn controller(api: &FakeApi) -> Controller {
    let caches = Caches::default();
    let mut known = set(Value::Null, json!({}));
    known.metadata.resource_version = Some("1".into());
    caches.daemon_sets.apply(known);
    let (recorder, _events) = Recorder::new(api.client(), "test");
    let pods = PodControl { client: api.client(), recorder, expectations: Arc::default() };
    Controller { client: api.client(), caches, pods, pauses: Mutex::default() }
}

#[tokio::test]
async fn a_status_that_is_late_is_not_written() {
    for (version, is_late) in [("1", false), ("2", true)] {
        let api = FakeApi::new(version);
        let outcome = controller(&api).reconcile("ns/d").await;
        assert_eq!(matches!(outcome, Err(Retry::Stale)), is_late, "{outcome:?}");
        assert_eq!(api.taken().iter().any(|taken| taken == STATUS), !is_late, "{:?}", api.taken());
        if !is_late {
            assert_eq!(api.body(STATUS)["metadata"]["resourceVersion"], "1");
        }
    }
}

#[tokio::test]
async fn the_status_is_written_where_pods_are_refused() {
    // No pod of this namespace can be made: their names are the server's to give, and that one is taken.
    let api = FakeApi::with("1", [("/api/v1/namespaces/ns/pods/", json!({}))]);
    let controller = controller(&api);
    controller.caches.nodes.apply((*node("a", json!({}))).clone());
    let outcome = controller.reconcile("ns/d").await;
    assert!(outcome.is_err(), "{outcome:?}");
    assert_eq!(api.body(STATUS)["status"]["desiredNumberScheduled"], 1, "{:?}", api.taken());
}
