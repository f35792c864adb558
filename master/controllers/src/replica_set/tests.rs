use std::sync::Arc;

use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::json;

use super::plan::{Difference, Failures, difference, next_availability, status};
use super::rank::to_delete;
use crate::owner::{claim, controller_reference};

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn set(replicas: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "set-uid", "generation": 3},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}},
    }))
    .unwrap()
}

fn pod(name: &str, node: Option<&str>, phase: &str, ready_for: Option<i64>) -> Arc<Pod> {
    let conditions = ready_for.map(|seconds| {
        json!([{"type": "Ready", "status": "True", "lastTransitionTime": (now() - seconds.seconds()).to_string()}])
    });
    let value = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "web"},
            "creationTimestamp": "2025-12-31T00:00:00Z"},
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": phase, "conditions": conditions},
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect()
}

#[test]
fn pods_that_do_least_are_deleted_first() {
    let mut cheap = (*pod("cheap", Some("a"), "Running", Some(50_000))).clone();
    cheap.metadata.annotations = Some([(super::rank::DELETION_COST.to_owned(), "-1".to_owned())].into());
    let pods = [
        pod("old", Some("a"), "Running", Some(60_000)),
        pod("young", Some("a"), "Running", Some(5)),
        pod("crowded", Some("b"), "Running", Some(60_000)),
        Arc::new(cheap),
        pod("unready", Some("a"), "Running", None),
        pod("pending", Some("a"), "Pending", None),
        pod("unassigned", None, "Pending", None),
    ];
    let related: Vec<_> = pods.iter().cloned().chain((0..9).map(|_| pods[2].clone())).collect();
    let order = to_delete(&pods, &related, 6, now());
    assert_eq!(names(&order), ["unassigned", "pending", "unready", "cheap", "crowded", "young"]);
}

#[test]
fn status_counts_and_remembers_a_failure_until_it_is_over() {
    let mut set = set(3);
    set.spec.as_mut().unwrap().min_ready_seconds = Some(10);
    let pods = [pod("a", Some("n"), "Running", Some(20)), pod("b", Some("n"), "Running", Some(4))];
    let failed = Failures { create: Some("quota".into()), delete: None };
    let first = status(&set, &pods, 1, now(), &failed);
    assert_eq!((first.replicas, first.ready_replicas, first.available_replicas), (2, Some(2), Some(1)));
    assert_eq!((first.terminating_replicas, first.observed_generation), (Some(1), Some(3)));
    assert_eq!(first.conditions.as_ref().unwrap()[0].reason.as_deref(), Some("FailedCreate"));
    assert_eq!(next_availability(10, &pods, now()), Some(6));
    set.status = Some(first);
    assert_eq!(status(&set, &pods, 0, now(), &Failures::default()).conditions, None);
}

#[test]
fn selected_orphans_are_adopted_and_others_released() {
    let set = set(1);
    let owned_by = |name: &str, labelled: bool, uid: Option<&str>| {
        let mut pod = (*pod(name, None, "Running", None)).clone();
        if !labelled {
            pod.metadata.labels = None;
        }
        pod.metadata.owner_references = uid.map(|uid| {
            let mut owner = controller_reference(&set);
            owner.uid = uid.to_owned();
            vec![owner]
        });
        Arc::new(pod)
    };
    let pods = vec![
        owned_by("mine", true, Some("set-uid")),
        owned_by("relabelled", false, Some("set-uid")),
        owned_by("orphan", true, None),
        owned_by("stranger", false, None),
        owned_by("others", true, Some("other")),
    ];
    let selector = &set.spec.as_ref().unwrap().selector;
    let claims = claim(&set.metadata, selector, pods.clone());
    assert_eq!(names(&claims.owned), ["mine"]);
    assert_eq!(names(&claims.release), ["relabelled"]);
    assert_eq!(names(&claims.adopt), ["orphan"]);

    let mut dying = set.metadata.clone();
    dying.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    let claims = claim(&dying, selector, pods);
    assert_eq!(names(&claims.owned), ["mine", "relabelled"]);
    assert!(claims.adopt.is_empty() && claims.release.is_empty());
}

proptest! {
    #[test]
    fn any_difference_is_closed(wanted in 0i32..2000, active in 0usize..2000) {
        let mut have = active;
        for _ in 0..5 {
            match difference(&set(wanted), have) {
                Difference::Create(count) => have += count,
                Difference::Delete(count) => have -= count,
                Difference::None => break,
            }
        }
        prop_assert_eq!(have, usize::try_from(wanted).unwrap());
    }

    #[test]
    fn exactly_as_many_are_chosen_and_none_twice(ready in proptest::collection::vec(proptest::option::of(0i64..100_000), 0..40), count in 0usize..50) {
        let pods: Vec<_> = ready.iter().enumerate()
            .map(|(at, ready)| pod(&at.to_string(), Some(["a", "b"][at % 2]), "Running", *ready)).collect();
        let chosen = to_delete(&pods, &pods, count, now());
        let distinct: std::collections::HashSet<_> = names(&chosen).into_iter().collect();
        prop_assert_eq!(distinct.len(), count.min(pods.len()));
        prop_assert_eq!(chosen.len(), count.min(pods.len()));
        let ready_chosen = chosen.iter().filter(|pod| crate::pods::is_ready(pod)).count();
        let unready = ready.iter().filter(|one| one.is_none()).count();
        prop_assert_eq!(ready_chosen, count.min(pods.len()).saturating_sub(unready));
    }
}
