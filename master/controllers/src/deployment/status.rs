//! status.conditions and the counts of a Deployment.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::Pass;
use super::sets::{Limits, Set};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// What a pass did about the set of the current template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It was there.
    Found(String),
    /// It is created in this pass.
    Created(String),
}

/// The status after a pass; `rollout` is false for passes that only scale.
pub(crate) fn calculate(pass: &Pass<'_>, rollout: bool, now: Timestamp) -> DeploymentStatus {
    let sum = |of: &dyn Fn(&Set) -> i32| pass.all().map(of).sum::<i32>();
    let before = pass.deployment.status.as_ref();
    let available = sum(&|set| set.available);
    let mut status = DeploymentStatus {
        observed_generation: pass.deployment.metadata.generation,
        replicas: some(sum(&Set::actual)),
        updated_replicas: some(pass.new.as_ref().map_or(0, Set::actual)),
        ready_replicas: some(sum(&Set::ready)),
        available_replicas: some(available),
        unavailable_replicas: some((pass.total() - available).max(0)),
        terminating_replicas: Some(sum(&terminating)),
        collision_count: before.and_then(|status| status.collision_count),
        conditions: before.and_then(|status| status.conditions.clone()),
    };
    let mut conditions = status.conditions.take().unwrap_or_default();
    let enough = available >= pass.limits.replicas - pass.limits.max_unavailable;
    let (word, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut conditions, condition(AVAILABLE, word, (reason, message.to_owned()), now));
    note_pause(pass, &mut conditions, now);
    if rollout {
        note_progress(pass, &status, &mut conditions, now);
        note_failures(pass, &mut conditions);
    }
    status.conditions = Some(conditions);
    status
}

/// Counts are absent from the status when they are zero.
fn some(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

fn terminating(set: &Set) -> i32 {
    set.object.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0)
}

/// Whether all pods are of the current template, and available.
pub(crate) fn is_complete(deployment: &Deployment, status: Option<&DeploymentStatus>, limits: &Limits) -> bool {
    let Some(status) = status else { return false };
    let count = |value: Option<i32>| value.unwrap_or(0);
    count(status.updated_replicas) == limits.replicas
        && count(status.replicas) == limits.replicas
        && count(status.available_replicas) == limits.replicas
        && status.observed_generation >= deployment.metadata.generation
}

/// Seconds until the rollout has taken too long, unless it is over or has no deadline.
pub(crate) fn seconds_to_deadline(status: &DeploymentStatus, limits: &Limits, now: Timestamp) -> Option<u64> {
    let deadline = i64::from(limits.deadline?);
    let current = find(status.conditions.as_deref().unwrap_or_default(), PROGRESSING)?;
    if matches!(current.reason.as_deref(), Some(NEW_SET_AVAILABLE | TIMED_OUT)) {
        return None;
    }
    let since = current.last_update_time.as_ref()?.0.as_second();
    Some(u64::try_from(since + deadline - now.as_second()).unwrap_or(0) + 1)
}

fn note_pause(pass: &Pass<'_>, conditions: &mut Vec<DeploymentCondition>, now: Timestamp) {
    if pass.limits.deadline.is_none() {
        return;
    }
    let paused = pass.deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
    let reason = find(conditions, PROGRESSING).and_then(|current| current.reason.clone());
    let was_paused = reason.as_deref() == Some(PAUSED);
    if reason.as_deref() == Some(TIMED_OUT) {
        return;
    }
    if paused && !was_paused {
        set(conditions, condition(PROGRESSING, "Unknown", (PAUSED, "Deployment is paused".to_owned()), now));
    } else if !paused && was_paused {
        set(
            conditions,
            condition(PROGRESSING, "Unknown", ("DeploymentResumed", "Deployment is resumed".to_owned()), now),
        );
    }
}

fn note_progress(
    pass: &Pass<'_>,
    status: &DeploymentStatus,
    conditions: &mut Vec<DeploymentCondition>,
    now: Timestamp,
) {
    let Some(deadline) = pass.limits.deadline else {
        conditions.retain(|condition| condition.type_ != PROGRESSING);
        return;
    };
    match &pass.progress {
        Some(Progress::Created(name)) => {
            let text = ("NewReplicaSetCreated", format!("Created new replica set \"{name}\""));
            set(conditions, condition(PROGRESSING, "True", text, now));
        }
        Some(Progress::Found(name)) if find(conditions, PROGRESSING).is_none() => {
            let text = ("FoundNewReplicaSet", format!("Found new replica set \"{name}\""));
            set(conditions, condition(PROGRESSING, "True", text, now));
        }
        Some(Progress::Found(_)) | None => (),
    }
    let current = find(conditions, PROGRESSING).cloned();
    let finished = current.as_ref().is_some_and(|current| current.reason.as_deref() == Some(NEW_SET_AVAILABLE));
    if finished && status.replicas == status.updated_replicas {
        return;
    }
    let subject = match &pass.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.name()),
        None => format!("Deployment \"{}\"", pass.deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    if is_complete(pass.deployment, Some(status), &pass.limits) {
        let text = (NEW_SET_AVAILABLE, format!("{subject} has successfully progressed."));
        set(conditions, condition(PROGRESSING, "True", text, now));
    } else if has_progressed(pass.deployment.status.as_ref(), status) {
        let text = ("ReplicaSetUpdated", format!("{subject} is progressing."));
        let mut next = condition(PROGRESSING, "True", text, now);
        if let Some(current) = current.filter(|current| current.status == "True") {
            next.last_transition_time = current.last_transition_time;
        }
        // Replaced even when nothing but the time differs: the deadline counts from the last progress.
        conditions.retain(|condition| condition.type_ != PROGRESSING);
        conditions.push(next);
    } else if current.is_some_and(|current| has_timed_out(&current, deadline, now)) {
        let text = (TIMED_OUT, format!("{subject} has timed out progressing."));
        set(conditions, condition(PROGRESSING, "False", text, now));
    }
}

fn has_progressed(before: Option<&DeploymentStatus>, after: &DeploymentStatus) -> bool {
    let none = DeploymentStatus::default();
    let before = before.unwrap_or(&none);
    let count = |value: Option<i32>| value.unwrap_or(0);
    let old = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(after.updated_replicas) > count(before.updated_replicas)
        || old(after) < old(before)
        || count(after.ready_replicas) > count(before.ready_replicas)
        || count(after.available_replicas) > count(before.available_replicas)
}

fn has_timed_out(current: &DeploymentCondition, deadline: i32, now: Timestamp) -> bool {
    match current.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => current
            .last_update_time
            .as_ref()
            .is_some_and(|since| now.as_second() > since.0.as_second() + i64::from(deadline)),
    }
}

fn note_failures(pass: &Pass<'_>, conditions: &mut Vec<DeploymentCondition>) {
    let failure = pass.all().find_map(|set| {
        let all = set.object.status.as_ref()?.conditions.as_ref()?;
        all.iter().find(|condition| condition.type_ == REPLICA_FAILURE)
    });
    match failure {
        Some(failure) => {
            let now = failure.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
            let reason = failure.reason.as_deref().unwrap_or_default();
            let text = (reason, failure.message.clone().unwrap_or_default());
            set(conditions, condition(REPLICA_FAILURE, &failure.status, text, now));
        }
        None => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
    }
}

fn condition(kind: &str, status: &str, (reason, message): (&str, String), now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

fn find<'a>(conditions: &'a [DeploymentCondition], kind: &str) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Replaces the condition of the same type unless status and reason are the same.
fn set(conditions: &mut Vec<DeploymentCondition>, mut next: DeploymentCondition) {
    if let Some(current) = find(conditions, &next.type_) {
        if current.status == next.status && current.reason == next.reason {
            return;
        }
        if current.status == next.status {
            next.last_transition_time = current.last_transition_time.clone();
        }
    }
    conditions.retain(|condition| condition.type_ != next.type_);
    conditions.push(next);
}

/// A condition that the ReplicaSet could not be created.
pub(crate) fn creation_failed(status: &mut DeploymentStatus, message: String, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != PROGRESSING);
    conditions.push(condition(PROGRESSING, "False", ("ReplicaSetCreateError", message), now));
}
