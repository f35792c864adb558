use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use super::plan::{asks_controllers, covers, failed, status, unmanaged};

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().unwrap()
}

fn budget(spec: Value) -> PodDisruptionBudget {
    let mut spec = spec;
    spec["selector"] = json!({ "matchLabels": { "app": "a" } });
    serde_json::from_value(json!({ "metadata": { "name": "b", "generation": 3 }, "spec": spec })).unwrap()
}

fn pod(name: &str, ready: bool) -> Arc<Pod> {
    let condition = json!({ "type": "Ready", "status": if ready { "True" } else { "False" } });
    let meta = json!({ "name": name, "labels": { "app": "a" } });
    Arc::new(serde_json::from_value(json!({ "metadata": meta, "status": { "conditions": [condition] } })).unwrap())
}

/// (allowed, healthy, desired, expected)
fn found(spec: Value, scale: i32) -> [i32; 4] {
    let pods = [pod("x", true), pod("y", true), pod("z", false)];
    let status = status(&budget(spec), &pods, scale, now()).status;
    [status.disruptions_allowed, status.current_healthy, status.desired_healthy, status.expected_pods]
        .map(Option::unwrap)
}

#[test]
fn numbers_and_shares() {
    assert_eq!(found(json!({ "minAvailable": 1 }), 3), [1, 2, 1, 3]);
    assert_eq!(found(json!({ "minAvailable": "50%" }), 3), [0, 2, 2, 3]);
    assert_eq!(found(json!({ "maxUnavailable": 1 }), 3), [0, 2, 2, 3]);
    assert_eq!(found(json!({ "maxUnavailable": "50%" }), 4), [0, 2, 2, 4]);
    assert_eq!(found(json!({ "maxUnavailable": 1 }), 0), [0, 2, 0, 0]);
    assert_eq!(found(json!({}), 3), [0, 2, 0, 0]);
}

#[test]
fn an_eviction_counts_until_its_pod_is_gone_or_it_has_failed() {
    let mut budget = budget(json!({ "minAvailable": 1 }));
    let pods = [pod("x", true), pod("y", true)];
    let after = |seconds: i64| now() + SignedDuration::from_secs(seconds);
    let disrupted = json!({ "x": now().to_string(), "gone": now().to_string() });
    budget.status = serde_json::from_value(json!({
        "currentHealthy": 2, "desiredHealthy": 1, "disruptionsAllowed": 0, "expectedPods": 2, "disruptedPods": disrupted,
    }))
    .unwrap();
    let decision = status(&budget, &pods, 2, after(30));
    assert!(decision.not_deleted.is_empty());
    let (soon, wake) = (decision.status, decision.wake);
    assert_eq!(soon.disrupted_pods.unwrap().keys().collect::<Vec<_>>(), ["x"]);
    assert_eq!(
        (soon.current_healthy, soon.disruptions_allowed, wake),
        (Some(1), Some(0), Some(SignedDuration::from_secs(90)))
    );
    let late = status(&budget, &pods, 2, after(120));
    let names: Vec<_> = late.not_deleted.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["x"]);
    assert_eq!((late.status.disrupted_pods, late.status.disruptions_allowed, late.wake), (None, Some(1), None));
}

#[test]
fn the_condition_changes_its_time_only_when_it_changes() {
    let mut budget = budget(json!({ "minAvailable": 1 }));
    let pods = [pod("x", true), pod("y", true)];
    let first = status(&budget, &pods, 2, now()).status;
    let condition = &first.conditions.as_ref().unwrap()[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "SufficientPods"));
    budget.status = Some(first.clone());
    let later = now() + SignedDuration::from_secs(9);
    assert_eq!(status(&budget, &pods, 2, later).status, first);
    // While it is not known how many there should be nothing is evicted.
    let unknown = failed(&budget, "found no controllers for pod \"x\"", later);
    let condition = &unknown.conditions.as_ref().unwrap()[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "SyncFailed"));
    assert_eq!(
        (condition.message.as_str(), condition.observed_generation),
        ("found no controllers for pod \"x\"", Some(3))
    );
    assert_eq!((unknown.disruptions_allowed, unknown.current_healthy), (Some(0), Some(2)));
}

#[test]
fn controllers_are_asked_where_a_share_is_to_be_known() {
    let asks = |spec: Value| asks_controllers(&budget(spec));
    assert!(asks(json!({ "maxUnavailable": 1 })) && asks(json!({ "minAvailable": "50%" })));
    assert!(!asks(json!({ "minAvailable": 1 })) && !asks(json!({})));
    let message = unmanaged(&budget(json!({})));
    let selector =
        "&LabelSelector{MatchLabels:map[string]string{app: a,},MatchExpressions:[]LabelSelectorRequirement{},}";
    assert!(
        message.starts_with(&format!("Pods selected by this PodDisruptionBudget (selector: {selector}) were")),
        "{message}"
    );
}

#[test]
fn the_empty_selector_covers_all_and_none_covers_nothing() {
    let of = |selector: Value| {
        let spec = json!({ "minAvailable": 1, "selector": selector });
        let budget: PodDisruptionBudget = serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap();
        covers(&budget, &pod("x", true))
    };
    assert!(of(json!({})) && of(json!({ "matchLabels": { "app": "a" } })));
    assert!(!of(Value::Null) && !of(json!({ "matchLabels": { "app": "b" } })));
}
