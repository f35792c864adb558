use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use machinery::Recorder;
use serde_json::{Value, json};

use super::plan::{Facts, Plan, Step, plan};
use super::{Caches, Controller, PodControl, Retry, claims, pod as member};
use crate::fake_api::FakeApi;
use crate::revisions;

fn set(more: Value) -> StatefulSet {
    let template =
        json!({ "metadata": { "labels": { "app": "w" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    let mut set = json!({
        "metadata": { "name": "w", "namespace": "n", "uid": "u", "generation": 2 },
        "spec": {
            "replicas": 3, "serviceName": "svc", "selector": { "matchLabels": { "app": "w" } }, "template": template,
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteOnce"] } }],
        },
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        set["spec"][field] = value.clone();
    }
    serde_json::from_value(set).unwrap()
}

/// A member: `r` ready, `p` pending, `u` running but not ready, `t` terminating, `f` failed.
fn pod(at: i32, state: char, revision: &str) -> Arc<Pod> {
    let name = format!("w-{at}");
    let labels = json!({
        "app": "w", "controller-revision-hash": revision, "statefulset.kubernetes.io/pod-name": name,
    });
    let phase = match state {
        'p' => "Pending",
        'f' => "Failed",
        _ => "Running",
    };
    let ready = json!({ "type": "Ready", "status": if state == 'r' { "True" } else { "False" } });
    let gone = (state == 't').then_some("2026-01-01T00:00:00Z");
    Arc::new(
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "n", "uid": format!("p{at}"), "labels": labels, "deletionTimestamp": gone },
            "status": { "phase": phase, "conditions": [ready] },
        }))
        .unwrap(),
    )
}

fn planned(set: &StatefulSet, pods: &[Arc<Pod>]) -> Plan {
    let spec = set.spec.as_ref().unwrap();
    plan(&Facts { set, spec, pods, current: "a", update: "b", now: Timestamp::UNIX_EPOCH })
}

/// `+2` creates of the new revision, `~2` of the old one, `-2` deletes, `?2` makes claims, `=2` labels.
fn steps(set: &StatefulSet, pods: &[Arc<Pod>]) -> String {
    let name = |pod: &Pod| pod.name_any().trim_start_matches("w-").to_owned();
    let step = |step: &Step| match step {
        Step::Create { ordinal, updated: true } => format!("+{ordinal}"),
        Step::Create { ordinal, updated: false } => format!("~{ordinal}"),
        Step::Claims(ordinal) => format!("?{ordinal}"),
        Step::Label(pod) => format!("={}", name(pod)),
        Step::Delete(pod) => format!("-{}", name(pod)),
    };
    planned(set, pods).steps.iter().map(step).collect::<Vec<_>>().join(" ")
}

fn all(states: &str, revisions: &str) -> Vec<Arc<Pod>> {
    let both = states.chars().zip(revisions.chars()).zip(0..);
    both.filter(|((state, _), _)| *state != ' ').map(|((state, of), at)| pod(at, state, &of.to_string())).collect()
}

#[test]
fn members_come_one_after_the_other() {
    let set = set(json!({}));
    for (states, wanted) in [
        ("", "+0"),
        ("p", "?0"),
        ("u", ""),
        ("r", "+1"),
        ("rr", "+2"),
        ("rrr", ""),
        (" rr", "+0"),
        ("rfr", "-1"),
        ("rtr", ""),
    ] {
        assert_eq!(steps(&set, &all(states, "bbb")), wanted, "{states:?}");
    }
}

#[test]
fn in_parallel_nobody_waits() {
    let set = set(json!({ "podManagementPolicy": "Parallel" }));
    for (states, wanted) in
        [("", "+0 +1 +2"), ("u r", "+1"), ("ppp", "?0 ?1 ?2"), ("rrrrr", "-4 -3"), ("rrrur", "-4 -3")]
    {
        assert_eq!(steps(&set, &all(states, "bbbbb")), wanted, "{states:?}");
    }
}

#[test]
fn surplus_goes_from_the_end_and_only_while_all_are_well() {
    let set = set(json!({}));
    for (states, wanted) in
        [("rrrrr", "-4"), ("rrrrt", ""), ("rurrr", ""), ("rrrur", "-4"), ("rrrru", "-4"), ("rrruu", ""), ("rrru", "-3")]
    {
        assert_eq!(steps(&set, &all(states, "bbbbb")), wanted, "{states:?}");
    }
}

#[test]
fn updates_go_from_the_end_down_to_the_partition() {
    let rolling = |partition: i32, most: Value| {
        let rolling = json!({ "partition": partition, "maxUnavailable": most });
        set(json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": rolling } }))
    };
    let one = rolling(0, Value::Null);
    assert_eq!(steps(&one, &all("rrr", "aaa")), "-2");
    assert_eq!(steps(&one, &all("rrr", "aab")), "-1");
    assert_eq!(steps(&one, &all("rrt", "aaa")), "");
    let canary = rolling(2, Value::Null);
    assert_eq!(steps(&canary, &all("rrr", "aaa")), "-2");
    assert_eq!(steps(&canary, &all("rrr", "aab")), "");
    assert_eq!(steps(&canary, &all("rr", "aa")), "+2");
    assert_eq!(steps(&canary, &all("r", "a")), "~1");
    assert_eq!(steps(&rolling(0, json!(2)), &all("rrr", "aaa")), "-2 -1");
    assert_eq!(steps(&rolling(0, json!("50%")), &all("rrr", "aaa")), "-2");
    let by_hand = set(json!({ "updateStrategy": { "type": "OnDelete" } }));
    assert_eq!(steps(&by_hand, &all("rrr", "aaa")), "");
}

#[test]
fn the_status_counts_by_revision_and_ends_an_update() {
    let set = set(json!({}));
    let status = planned(&set, &all("rut", "aab")).status;
    let counts = [Some(status.replicas), status.ready_replicas, status.current_replicas, status.updated_replicas];
    assert_eq!(counts, [Some(3), Some(1), Some(2), None]);
    assert_eq!((status.current_revision.as_deref(), status.update_revision.as_deref()), (Some("a"), Some("b")));
    let status = planned(&set, &all("rrr", "bbb")).status;
    assert_eq!((status.current_revision.as_deref(), status.current_replicas), (Some("b"), Some(3)));
    assert_eq!(status.observed_generation, Some(2));
}

#[test]
fn ordinals_may_start_elsewhere() {
    let set = set(json!({ "ordinals": { "start": 1 }, "replicas": 2 }));
    assert_eq!(steps(&set, &all(" r", " b")), "+2");
    assert_eq!(steps(&set, &all("rrr", "bbb")), "-0");
}

#[test]
fn a_member_has_a_name_a_place_and_claims() {
    let set = set(json!({}));
    let of = revisions::of(&set, &[]);
    let pod = member::of(&set, &of, 4);
    assert_eq!(pod.name_any(), "w-4");
    assert_eq!(pod.labels()["statefulset.kubernetes.io/pod-name"], "w-4");
    assert_eq!(pod.labels()["apps.kubernetes.io/pod-index"], "4");
    assert_eq!(pod.labels()["controller-revision-hash"], of.name_any());
    let spec = pod.spec.unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("w-4"), Some("svc")));
    let volume = &spec.volumes.unwrap()[0];
    assert_eq!(
        (volume.name.as_str(), volume.persistent_volume_claim.as_ref().unwrap().claim_name.as_str()),
        ("data", "data-w-4")
    );
    let claim = &claims::of(&set, 4)[0];
    assert_eq!((claim.name_any().as_str(), claim.labels()["app"].as_str()), ("data-w-4", "w"));
}

#[test]
fn revisions_are_numbered_and_old_ones_dropped() {
    let now = set(json!({}));
    let revision = |number: i64| {
        let meta = json!({ "name": format!("w-{number}") });
        Arc::new(serde_json::from_value::<ControllerRevision>(json!({ "metadata": meta, "revision": number })).unwrap())
    };
    let known: Vec<_> = (1..=4).map(revision).collect();
    assert_eq!(revisions::of(&now, &known).revision, 5);
    let few = set(json!({ "revisionHistoryLimit": 1 }));
    assert_eq!(revisions::surplus(&few, &known, |one| ["w-1", "w-4"].contains(&one.name_any().as_str())), ["w-2"]);
}

#[test]
fn claims_go_with_those_that_the_policy_names() {
    let owners = |deleted: &str, scaled: &str, is_surplus: bool, had: Value| {
        let set =
            set(json!({ "persistentVolumeClaimRetentionPolicy": { "whenDeleted": deleted, "whenScaled": scaled } }));
        let meta = serde_json::from_value(json!({ "ownerReferences": had })).unwrap();
        let found = claims::owners(&set, &pod(0, 'r', "b"), is_surplus, &meta);
        found.map(|all| all.into_iter().map(|one| one.kind).collect::<Vec<_>>().join(" "))
    };
    let of = |kind: &str, uid: &str| {
        let (version, name) = if kind == "Pod" { ("v1", "w-0") } else { ("apps/v1", "w") };
        json!([{ "apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": true }])
    };
    assert_eq!(owners("Retain", "Retain", false, json!([])), None);
    assert_eq!(owners("Retain", "Retain", false, of("StatefulSet", "u")).as_deref(), Some(""));
    assert_eq!(owners("Delete", "Retain", false, json!([])).as_deref(), Some("StatefulSet"));
    assert_eq!(owners("Delete", "Retain", false, of("StatefulSet", "u")), None);
    assert_eq!(owners("Delete", "Delete", true, of("StatefulSet", "u")).as_deref(), Some("Pod"));
    assert_eq!(owners("Retain", "Delete", false, of("Pod", "p0")).as_deref(), Some(""));
    assert_eq!(owners("Delete", "Retain", false, of("StatefulSet", "another")), None);
}

#[test]
fn claims_are_known_by_their_names() {
    let set = set(json!({}));
    assert!(claims::has(&set, "data-w-0") && claims::has(&set, "data-w-12"));
    for other in ["data-w-", "data-w-x", "data-w", "other-w-0", "data-v-0"] {
        assert!(!claims::has(&set, other), "{other}");
    }
}

#[tokio::test]
async fn a_name_that_somebody_elses_pod_has_is_tried_again() {
    let pod = "/api/v1/namespaces/n/pods/w-0";
    let mut wanted = set(json!({}));
    wanted.spec.as_mut().unwrap().volume_claim_templates = None;
    let create = async |is_known: bool| {
        let api = FakeApi::with("1", [(pod, json!({}))]);
        let caches = Caches::default();
        caches.stateful_sets.apply(wanted.clone());
        let (recorder, _events) = Recorder::new(api.client(), "test");
        let pods = PodControl { client: api.client(), recorder: recorder.clone(), expectations: Arc::default() };
        let controller = Controller { client: api.client(), caches, recorder, pods };
        if is_known {
            controller.caches.pods.apply(member::of(&wanted, &revisions::of(&wanted, &[]), 0));
        }
        controller.create(&wanted, &revisions::of(&wanted, &[]), 0).await
    };
    assert!(matches!(create(false).await, Err(Retry::Stale)));
    assert!(matches!(create(true).await, Ok(())));
}
