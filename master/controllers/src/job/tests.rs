use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::outcome::is_true;
use super::plan::{Plan, plan};

const NOW: i64 = 1_700_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn job(spec: Value) -> Job {
    let mut spec = spec;
    spec["template"] = json!({ "spec": { "restartPolicy": "Never", "containers": [] } });
    serde_json::from_value(json!({ "metadata": { "name": "j", "namespace": "n", "uid": "u" }, "spec": spec })).unwrap()
}

fn pod(name: &str, phase: &str, held: bool, index: Option<i32>) -> Arc<Pod> {
    let mut annotations = json!({});
    if let Some(index) = index {
        annotations["batch.kubernetes.io/job-completion-index"] = index.to_string().into();
    }
    let finalizers = if held { json!(["batch.kubernetes.io/job-tracking"]) } else { json!([]) };
    let time = now().to_string();
    let conditions = json!([{ "type": "Ready", "status": "False", "lastTransitionTime": time }]);
    let pod = json!({
        "metadata": { "name": name, "namespace": "n", "uid": name, "finalizers": finalizers, "annotations": annotations },
        "status": { "phase": phase, "conditions": conditions },
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// The next pass, with the status that this one wrote and the pods as they are then.
fn next(job: &Job, plan: Plan, pods: &[Arc<Pod>]) -> (Job, Plan) {
    let job = Job { status: Some(plan.status), ..job.clone() };
    let plan = super::plan::plan(&job, pods, now());
    (job, plan)
}

#[test]
fn pods_are_made_and_counted_once() {
    let job = job(json!({ "completions": 2, "parallelism": 1, "backoffLimit": 6 }));
    let first = plan(&job, &[], now());
    assert_eq!(first.create.len(), 1);
    assert!(first.status.start_time.is_some());
    let (job, noted) = next(&job, first, &[pod("a", "Succeeded", true, None)]);
    assert_eq!(noted.status.uncounted_terminated_pods.as_ref().unwrap().succeeded, Some(vec!["a".into()]));
    assert_eq!((noted.status.succeeded, noted.release.len(), noted.create.len()), (None, 1, 1));
    // The finalizer is gone: a number now, whether the pod is still there or not.
    let (job, counted) = next(&job, noted, &[pod("a", "Succeeded", false, None), pod("b", "Running", true, None)]);
    assert_eq!((counted.status.succeeded, counted.status.active, counted.create.len()), (Some(1), Some(1), 0));
    let (job, again) = next(&job, counted, &[pod("b", "Succeeded", true, None)]);
    assert!(is_true(&again.status, "SuccessCriteriaMet") && !is_true(&again.status, "Complete"));
    let (_, done) = next(&job, again, &[pod("b", "Succeeded", false, None)]);
    assert!(is_true(&done.status, "Complete") && done.status.completion_time.is_some());
    assert_eq!((done.status.succeeded, done.event.unwrap().1), (Some(2), "Completed"));
}

#[test]
fn failures_are_replaced_later_and_later_and_end_the_job() {
    let job = job(json!({ "completions": 1, "parallelism": 1, "backoffLimit": 1 }));
    let noted = plan(&job, &[pod("a", "Failed", true, None)], now());
    assert_eq!((noted.create.len(), noted.wake), (0, Some(10)), "the first replacement waits, too");
    let (job, counted) = next(&job, noted, &[pod("a", "Failed", false, None)]);
    assert_eq!((counted.status.failed, counted.wake, counted.create.len()), (Some(1), Some(10), 0));
    let pods = [pod("a", "Failed", false, None), pod("b", "Failed", true, None)];
    let (job, target) = next(&job, counted, &pods);
    assert!(is_true(&target.status, "FailureTarget") && !is_true(&target.status, "Failed"));
    let (_, failed) = next(&job, target, &[pod("b", "Failed", false, None)]);
    assert!(is_true(&failed.status, "Failed"));
    let (warning, reason, message) = failed.event.unwrap();
    assert_eq!((warning, reason), (true, "BackoffLimitExceeded"));
    assert_eq!(message, "Job has reached the specified backoff limit");
}

#[test]
fn indexes_are_filled_from_below() {
    let job = job(json!({ "completions": 5, "parallelism": 3, "completionMode": "Indexed", "backoffLimit": 6 }));
    let pods = [pod("a", "Succeeded", true, Some(1)), pod("b", "Running", true, Some(0))];
    let found = plan(&job, &pods, now());
    assert_eq!(found.status.completed_indexes.as_deref(), Some("1"));
    assert_eq!(found.create.iter().map(|new| new.index.unwrap()).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_smaller_job_loses_its_last_indexes() {
    let job = job(json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimit": 6 }));
    let running = |index: i32| pod(&index.to_string(), "Running", true, Some(index));
    let deleted = |pods: &[Arc<Pod>]| {
        let mut names: Vec<String> =
            plan(&job, pods, now()).delete.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(deleted(&[0, 1, 2, 3, 4].map(running)), ["2", "3", "4"]);
    // They go although there are no more pods than wanted; their place is filled afterwards.
    assert_eq!(deleted(&[0, 3].map(running)), ["3"]);
    assert!(deleted(&[0, 1].map(running)).is_empty());
    // Of two pods of an index the ready one stays, and one without an index does not.
    let mut ready = Pod::clone(&running(0));
    ready.metadata.name = Some("ready".into());
    ready.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "True".into();
    assert_eq!(deleted(&[Arc::new(ready), running(0)]), ["0"]);
    assert_eq!(deleted(&[running(1), pod("none", "Running", true, None)]), ["none"]);
}

/// A pod that ended so many seconds ago.
fn ended(name: &str, phase: &str, index: Option<i32>, ago: i64) -> Arc<Pod> {
    let mut ended = Pod::clone(&pod(name, phase, false, index));
    let condition = &mut ended.status.as_mut().unwrap().conditions.as_mut().unwrap()[0];
    let at = now() - jiff::SignedDuration::from_secs(ago);
    condition.last_transition_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
    Arc::new(ended)
}

#[test]
fn replacements_wait_for_as_many_as_failed_since_the_last_success() {
    for mode in ["NonIndexed", "Indexed"] {
        let job = job(json!({ "completions": 9, "parallelism": 1, "backoffLimit": 20, "completionMode": mode }));
        let index = |of: i32| Some(of).filter(|_| mode == "Indexed");
        let failed = |ago: [i64; 3]| -> Vec<Arc<Pod>> {
            let each = (0..).zip(ago);
            each.map(|(number, ago)| ended(&format!("f{number}"), "Failed", index(number), ago)).collect()
        };
        let three = failed([35, 20, 15]);
        assert_eq!(plan(&job, &three, now()).wake, Some(25), "{mode}: 40 seconds after the third");
        let success = ended("s", "Succeeded", index(8), 18);
        let with_success = [three, vec![success.clone()]].concat();
        assert_eq!(plan(&job, &with_success, now()).create.len(), 1, "{mode}: 10 seconds after the one since then");
        let with_success = [failed([35, 8, 5]), vec![success]].concat();
        assert_eq!(plan(&job, &with_success, now()).wake, Some(15), "{mode}: 20 seconds after the second since then");
    }
}

#[test]
fn failures_of_pods_that_are_gone_count_until_one_succeeds() {
    let mut job = job(json!({ "completions": 2, "parallelism": 1, "backoffLimit": 20 }));
    let wake = |job: &Job| plan(job, &[ended("f", "Failed", None, 0)], now()).wake;
    job.status = Some(serde_json::from_value(json!({ "failed": 4, "startTime": now().to_string() })).unwrap());
    assert_eq!(wake(&job), Some(80));
    job.status.as_mut().unwrap().succeeded = Some(1);
    assert_eq!(wake(&job), Some(10));
}

#[test]
fn an_index_waits_by_itself_where_it_fails_by_itself() {
    let job = job(json!({
        "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 5, "backoffLimit": i32::MAX,
    }));
    let mut again = Pod::clone(&ended("a", "Failed", Some(0), 5));
    let annotations = again.metadata.annotations.as_mut().unwrap();
    annotations.insert("batch.kubernetes.io/job-index-failure-count".into(), "1".into());
    let found = plan(&job, &[Arc::new(again)], now());
    assert_eq!(found.create.iter().map(|new| new.index).collect::<Vec<_>>(), [Some(1)]);
    assert_eq!(found.wake, Some(15));
}

#[test]
fn an_index_fails_by_itself() {
    let job = job(json!({
        "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 0, "backoffLimit": i32::MAX,
    }));
    let pods = [pod("a", "Failed", true, Some(0)), pod("b", "Succeeded", true, Some(1))];
    let noted = plan(&job, &pods, now());
    assert_eq!(noted.status.failed_indexes.as_deref(), Some("0"));
    assert!(is_true(&noted.status, "FailureTarget"));
    let (_, end) = next(&job, noted, &[pod("a", "Failed", false, Some(0)), pod("b", "Succeeded", false, Some(1))]);
    assert_eq!(end.event.unwrap().1, "FailedIndexes");
}

#[test]
fn suspended_jobs_have_no_pods_and_no_clock() {
    let job = job(json!({ "completions": 1, "parallelism": 1, "suspend": true }));
    let resting = plan(&job, &[pod("a", "Running", true, None)], now());
    assert_eq!((resting.delete.len(), resting.create.len()), (1, 0));
    assert!(is_true(&resting.status, "Suspended") && resting.status.start_time.is_none());
    let mut job = job;
    job.spec.as_mut().unwrap().suspend = Some(false);
    let (_, awake) = next(&job, resting, &[]);
    assert_eq!((awake.create.len(), awake.event.unwrap().1), (1, "Resumed"));
}

#[test]
fn policies_decide_what_a_failure_means() {
    let rules = json!([
        { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
        { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } },
    ]);
    let job =
        job(json!({ "completions": 1, "parallelism": 1, "backoffLimit": 6, "podFailurePolicy": { "rules": rules } }));
    let failed = |status: Value| {
        let mut pod: Value = serde_json::to_value(&*pod("a", "Failed", true, None)).unwrap();
        pod["status"].as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
        Arc::new(serde_json::from_value::<Pod>(pod).unwrap())
    };
    let disrupted = json!({ "conditions": [{ "type": "DisruptionTarget", "status": "True" }] });
    let ignored = plan(&job, &[failed(disrupted)], now());
    assert_eq!(ignored.release.len(), 1);
    assert_eq!(ignored.status.uncounted_terminated_pods.unwrap().failed, None);
    let state = json!({ "terminated": { "exitCode": 42 } });
    let exited = json!({ "containerStatuses": [{ "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state }] });
    let ended = plan(&job, &[failed(exited)], now());
    let condition = super::outcome::condition(&ended.status, "FailureTarget").unwrap();
    assert_eq!(condition.reason.as_deref(), Some("PodFailurePolicy"));
    let text = "Container c for pod n/a failed with exit code 42 matching FailJob rule at index 1";
    assert_eq!(condition.message.as_deref(), Some(text));
}

#[test]
fn a_deadline_ends_everything() {
    let mut job = job(json!({ "completions": 1, "parallelism": 1, "activeDeadlineSeconds": 5 }));
    let started = plan(&job, &[], now());
    assert_eq!(started.wake, Some(5));
    job.status = Some(started.status);
    let later = now() + jiff::SignedDuration::from_secs(5);
    let late = plan(&job, &[pod("a", "Running", true, None)], later);
    assert_eq!(late.delete.len(), 1);
    assert!(is_true(&late.status, "FailureTarget"));
}

#[test]
fn restarts_of_initializing_containers_count() {
    let mut job = job(json!({ "completions": 1, "parallelism": 1, "backoffLimit": 3 }));
    let template = job.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
    template.restart_policy = Some("OnFailure".into());
    let container = |name: &str, restarts: i32| json!({ "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": restarts });
    let found = |init: i32, main: i32| {
        let mut pod: Value = serde_json::to_value(&*pod("a", "Pending", true, None)).unwrap();
        pod["status"]["initContainerStatuses"] = json!([container("i", init), container("done", 0)]);
        pod["status"]["containerStatuses"] = json!([container("c", main)]);
        let mut pod: Pod = serde_json::from_value(pod).unwrap();
        // As the controller sees it.
        crate::trim::pod(&mut pod);
        is_true(&plan(&job, &[Arc::new(pod)], now()).status, "FailureTarget")
    };
    assert!(!found(2, 0) && found(3, 0) && found(2, 1) && found(0, 3));
}
