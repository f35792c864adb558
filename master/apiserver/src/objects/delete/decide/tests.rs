use jiff::Timestamp;
use schema::Registry;
use serde_json::{Value, json};

use super::{DeleteOptions, Step, decide};

const NOW: &str = "2026-01-01T00:01:00Z";

fn pod(metadata: Value) -> Value {
    json!({ "metadata": metadata, "spec": { "nodeName": "n", "terminationGracePeriodSeconds": 30 } })
}

/// What becomes of an object's metadata: `Null` when it is removed.
fn deleted(plural: &str, object: &Value, options: Value) -> Value {
    let kind = Registry::builtin().kinds().find(|kind| kind.plural == plural).unwrap();
    let options: DeleteOptions = serde_json::from_value(options).unwrap();
    let now: Timestamp = NOW.parse().unwrap();
    match decide(kind, object, &options, now) {
        Step::Remove => Value::Null,
        Step::Update(new) => new["metadata"].clone(),
        Step::Wait => object["metadata"].clone(),
    }
}

/// A pod that is to be gone at a time, with the grace that it was granted.
fn going(at: &str, seconds: i64) -> Value {
    pod(json!({ "deletionTimestamp": at, "deletionGracePeriodSeconds": seconds, "generation": 2 }))
}

#[test]
fn a_first_delete_grants_what_is_asked_for() {
    let granted = |options: Value| {
        let found = deleted("pods", &pod(json!({ "generation": 1 })), options);
        (found["deletionTimestamp"].clone(), found["deletionGracePeriodSeconds"].clone(), found["generation"].clone())
    };
    assert_eq!(granted(json!({})), (json!("2026-01-01T00:01:30Z"), json!(30), json!(2)));
    assert_eq!(granted(json!({ "gracePeriodSeconds": 5 })), (json!("2026-01-01T00:01:05Z"), json!(5), json!(2)));
    assert_eq!(granted(json!({ "gracePeriodSeconds": -7 })), (json!("2026-01-01T00:01:01Z"), json!(1), json!(2)));
    assert_eq!(deleted("pods", &pod(json!({})), json!({ "gracePeriodSeconds": 0 })), Value::Null);
}

#[test]
fn a_second_delete_only_shortens() {
    // Asked for at 00:00:50.
    let found = |options: Value| {
        let found = deleted("pods", &going("2026-01-01T00:01:20Z", 30), options);
        (found["deletionTimestamp"].clone(), found["deletionGracePeriodSeconds"].clone())
    };
    let unchanged = (json!("2026-01-01T00:01:20Z"), json!(30));
    for options in [json!({}), json!({ "gracePeriodSeconds": 30 }), json!({ "gracePeriodSeconds": 60 })] {
        assert_eq!(found(options.clone()), unchanged, "{options}");
    }
    assert_eq!(found(json!({ "gracePeriodSeconds": 15 })), (json!("2026-01-01T00:01:05Z"), json!(15)));
    // It would have been over at 00:00:55.
    assert_eq!(found(json!({ "gracePeriodSeconds": 5 })), (json!(NOW), json!(1)));
    assert_eq!(found(json!({ "gracePeriodSeconds": -1 })), (json!(NOW), json!(1)));
    assert_eq!(deleted("pods", &going("2026-01-01T00:01:20Z", 30), json!({ "gracePeriodSeconds": 0 })), Value::Null);
    let same = deleted("pods", &going("2026-01-01T00:01:20Z", 30), json!({ "propagationPolicy": "Foreground" }));
    assert_eq!(same["finalizers"], Value::Null, "a deletion that is under way has its finalizers");
}

#[test]
fn with_no_grace_left_finalizers_still_follow_the_policy() {
    let mut pod = going(NOW, 0);
    pod["metadata"]["finalizers"] = json!(["example.com/a", "foregroundDeletion"]);
    let found = |policy: &str| deleted("pods", &pod, json!({ "propagationPolicy": policy }))["finalizers"].clone();
    assert_eq!(found("Orphan"), json!(["example.com/a", "orphan"]));
    assert_eq!(found("Background"), json!(["example.com/a"]));
    pod["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
    assert_eq!(deleted("pods", &pod, json!({ "propagationPolicy": "Background" })), Value::Null);
    assert_eq!(deleted("pods", &pod, json!({})), pod["metadata"]);
}

#[test]
fn what_knows_no_grace_goes_at_once_or_is_marked() {
    let object = |finalizers: Value| json!({ "metadata": { "generation": 1, "finalizers": finalizers } });
    assert_eq!(deleted("configmaps", &json!({ "metadata": {} }), json!({})), Value::Null);
    let marked = deleted("configmaps", &object(json!(["a/b"])), json!({ "gracePeriodSeconds": 40 }));
    let wanted = json!({
        "generation": 2, "finalizers": ["a/b"], "deletionTimestamp": NOW, "deletionGracePeriodSeconds": 0,
    });
    assert_eq!(marked, wanted);
    assert_eq!(deleted("configmaps", &json!({ "metadata": wanted }), json!({})), wanted);
}

#[test]
fn a_namespace_is_marked_once_and_stays_while_it_has_finalizers_of_its_own() {
    let mut namespace = json!({ "metadata": {}, "spec": { "finalizers": ["kubernetes"] } });
    let options = json!({ "propagationPolicy": "Foreground" });
    let marked = deleted("namespaces", &namespace, options);
    assert_eq!(marked, json!({ "deletionTimestamp": NOW, "finalizers": ["foregroundDeletion"] }));
    namespace["metadata"] = json!({ "deletionTimestamp": NOW });
    assert_eq!(deleted("namespaces", &namespace, json!({})), namespace["metadata"]);
    namespace["spec"] = json!({});
    assert_eq!(deleted("namespaces", &namespace, json!({})), Value::Null);
}

#[test]
fn jobs_and_replication_controllers_leave_their_pods_unless_told_otherwise() {
    for plural in ["jobs", "replicationcontrollers"] {
        let found = |metadata: Value, options: Value| {
            deleted(plural, &json!({ "metadata": metadata }), options)["finalizers"].clone()
        };
        assert_eq!(found(json!({}), json!({})), json!(["orphan"]));
        assert_eq!(found(json!({}), json!({ "propagationPolicy": "Background" })), Value::Null);
        assert_eq!(found(json!({}), json!({ "orphanDependents": false })), Value::Null);
        let foreground = json!(["foregroundDeletion"]);
        assert_eq!(found(json!({ "finalizers": foreground }), json!({})), foreground);
    }
    let event = deleted("events", &json!({ "metadata": {} }), json!({ "propagationPolicy": "Orphan" }));
    assert_eq!(event, Value::Null, "an event owns nothing");
}
