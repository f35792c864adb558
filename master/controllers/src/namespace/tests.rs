use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use serde_json::json;

use super::plan::{Remaining, conditions, undiscovered};
use super::{Caches, Controller, Patience};
use crate::fake_api::FakeApi;

#[test]
fn conditions_name_what_is_left_and_keep_their_times() {
    let early: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let late: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
    let mut left = Remaining::default();
    assert!(left.is_empty());
    left.note("configmaps.", std::iter::empty());
    left.note("pods.", [vec!["example.com/hold".to_owned()], vec![]].into_iter());
    assert!(!left.is_empty());
    let first = conditions(&Namespace::default(), &left, early);
    let message = |kind: &str| first.iter().find(|one| one.type_ == kind).and_then(|one| one.message.clone()).unwrap();
    assert_eq!(message("NamespaceContentRemaining"), "Some resources are remaining: pods. has 2 resource instances");
    assert_eq!(
        message("NamespaceFinalizersRemaining"),
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    );
    assert_eq!(message("NamespaceDeletionDiscoveryFailure"), "All resources successfully discovered");
    let theirs = NamespaceCondition { type_: "Theirs".into(), status: "True".into(), ..NamespaceCondition::default() };
    let all = [vec![theirs], first].concat();
    let status = NamespaceStatus { conditions: Some(all.clone()), ..NamespaceStatus::default() };
    let namespace = Namespace { status: Some(status), ..Namespace::default() };
    assert_eq!(conditions(&namespace, &left, late), all);
}

#[test]
fn servers_that_do_not_answer_are_named() {
    assert_eq!(undiscovered(&[]), None);
    let wanted = "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
                  a.io/v1: stale GroupVersion discovery: a.io/v1";
    assert_eq!(undiscovered(&["a.io/v1".to_owned()]).as_deref(), Some(wanted));
}

#[tokio::test]
async fn only_our_finalizer_is_taken_off() {
    let stored = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": "n", "uid": "u", "resourceVersion": "5", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "labels": { "a": "b" }, "annotations": { "c": "d" }, "finalizers": ["example.org/hold"],
        },
        "spec": { "finalizers": ["example.org/other", "kubernetes"] }, "status": { "phase": "Terminating" },
    });
    let api = FakeApi::with("5", [("/api/v1/namespaces/n", stored.clone())]);
    let controller = Controller { client: api.client(), caches: Caches::default(), patience: Patience::default() };
    // As the cache has it.
    let mut known: Namespace = serde_json::from_value(stored.clone()).unwrap();
    (known.metadata.annotations, known.metadata.resource_version) = (None, Some("4".into()));
    controller.finalize(&known).await.unwrap();
    let mut wanted = stored;
    wanted["spec"]["finalizers"] = json!(["example.org/other"]);
    assert_eq!(api.body("PUT /api/v1/namespaces/n/finalize"), wanted);
    known.metadata.uid = Some("earlier".into());
    controller.finalize(&known).await.unwrap();
    assert_eq!(api.taken().len(), 1, "{:?}", api.taken());
}
