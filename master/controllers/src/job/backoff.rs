//! How long the replacement of a failed pod waits (`pkg/controller/job/backoff_utils.go`). Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::JobStatus;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::plan::{Pods, failures_before, uncounted};
use crate::pods;

/// After the first failure, in seconds; doubled with each further one.
const FIRST_PAUSE: i64 = 10;
const LONGEST_PAUSE: i64 = 600;

/// Seconds that the next pod of a job still has to wait: the longer, the more pods failed since the last one that succeeded.
pub(super) fn of_job(status: &JobStatus, pods: &Pods, now: Timestamp) -> Option<i64> {
    let last_success = pods.succeeded.iter().map(|pod| finished(pod)).max();
    let failures: Vec<Timestamp> = pods.failed.iter().map(|pod| finished(pod)).collect();
    let since = failures.iter().filter(|at| last_success.is_none_or(|success| **at > success));
    let (last, mut count) = (since.clone().max().copied()?, since.count());
    let (succeeded, failed) = uncounted(status);
    if status.succeeded.unwrap_or(0) == 0 && succeeded.is_empty() {
        // Those that were counted may be gone by now.
        count = count.max(usize::try_from(status.failed.unwrap_or(0)).unwrap_or(0) + failed.len());
    }
    pause(last, i32::try_from(count).unwrap_or(i32::MAX), now)
}

/// Seconds that the next pod of an index still has to wait, after these that failed.
pub(super) fn of_index<'a>(failed: impl Iterator<Item = &'a Pod> + Clone, now: Timestamp) -> Option<i64> {
    let last = failed.clone().map(finished).max()?;
    let failures = failed.map(|pod| failures_before(pod).saturating_add(1)).max().unwrap_or(0);
    pause(last, failures, now)
}

fn pause(last: Timestamp, failures: i32, now: Timestamp) -> Option<i64> {
    let doublings = u32::try_from(failures - 1).ok()?.min(10);
    let pause = (FIRST_PAUSE << doublings).min(LONGEST_PAUSE);
    let left = last.as_second() + pause - now.as_second();
    (left > 0).then_some(left)
}

/// When a pod ended: when its last container did, or else as well as its other fields tell (`getFinishedTime`).
fn finished(pod: &Pod) -> Timestamp {
    let unready = || {
        let ready = pods::condition(pod, "Ready").filter(|condition| condition.status == "False")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    };
    let deleted = || {
        let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
        pod.metadata.deletion_timestamp.as_ref()?.0.checked_sub(grace).ok()
    };
    let created = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    by_containers(pod).or_else(unready).or_else(deleted).or_else(created).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// None while one of them is not known to have ended. Those that initialize the pod count when they run beside the others.
fn by_containers(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let ended = |one: &ContainerStatus| Some(one.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0);
    let init = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let runs_beside = |one: &&ContainerStatus| {
        init.iter().any(|container| container.name == one.name && container.restart_policy.as_deref() == Some("Always"))
    };
    let beside = status.init_container_statuses.iter().flatten().filter(runs_beside);
    let all: Option<Vec<Timestamp>> = status.container_statuses.iter().flatten().chain(beside).map(ended).collect();
    all?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_pod_ended_with_its_last_container_or_as_its_other_fields_tell() {
        let at = |minute: u32| format!("2026-01-01T00:{minute:02}:00Z");
        let container = |name: &str, minute: Option<u32>| {
            let ended = minute.map(|minute| json!({ "exitCode": 1, "finishedAt": at(minute) }));
            let state = json!({ "terminated": ended });
            json!({ "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state })
        };
        let pod = |containers: Value, init: Value, more: &[(&str, Value)]| {
            let mut pod = json!({
                "metadata": { "creationTimestamp": at(1) },
                "spec": { "containers": [], "initContainers": [{ "name": "side", "restartPolicy": "Always" }, { "name": "init" }] },
                "status": { "containerStatuses": containers, "initContainerStatuses": init },
            });
            for (pointer, value) in more {
                let (parent, field) = pointer.rsplit_once('/').unwrap();
                pod.pointer_mut(parent).unwrap()[field] = value.clone();
            }
            finished(&serde_json::from_value(pod).unwrap()).to_string()
        };
        let both = json!([container("a", Some(10)), container("b", Some(9))]);
        let running = json!([container("a", Some(10)), container("b", None)]);
        let ready = json!([{ "type": "Ready", "status": "False", "lastTransitionTime": at(5) }]);
        let unready = ("/status/conditions", ready);
        let going =
            [("/metadata/deletionTimestamp", json!(at(7))), ("/metadata/deletionGracePeriodSeconds", json!(60))];
        assert_eq!(pod(both.clone(), json!([container("init", None)]), std::slice::from_ref(&unready)), at(10));
        assert_eq!(pod(both.clone(), json!([container("side", Some(11))]), &[]), at(11));
        assert_eq!(pod(both, json!([container("side", None)]), std::slice::from_ref(&unready)), at(5));
        assert_eq!(pod(running.clone(), json!([]), &[unready]), at(5));
        assert_eq!(pod(running.clone(), json!([]), &going), at(6));
        assert_eq!(pod(running, json!([]), &[]), at(1));
    }
}
