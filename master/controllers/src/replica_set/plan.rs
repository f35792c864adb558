//! How many pods are missing or too many, and what the status says. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pods;

/// The most pods that are created or deleted in one pass (upstream: BurstReplicas).
const BURST: usize = 500;

/// What to do about the number of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    None,
    Create(usize),
    Delete(usize),
}

/// Compares spec.replicas with the number of active pods.
pub(crate) fn difference(set: &ReplicaSet, active: usize) -> Difference {
    let wanted = wanted(set);
    match active.cmp(&wanted) {
        std::cmp::Ordering::Less => Difference::Create((wanted - active).min(BURST)),
        std::cmp::Ordering::Greater => Difference::Delete((active - wanted).min(BURST)),
        std::cmp::Ordering::Equal => Difference::None,
    }
}

fn wanted(set: &ReplicaSet) -> usize {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

/// The API server's words about what could not be written in this pass.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    pub(crate) create: Option<String>,
    pub(crate) delete: Option<String>,
}

/// The status after this pass.
pub(crate) fn status(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    now: Timestamp,
    failures: &Failures,
) -> ReplicaSetStatus {
    let spec = set.spec.as_ref();
    let template = spec.and_then(|spec| spec.template.as_ref()).and_then(|template| template.metadata.as_ref());
    let wanted_labels = template.and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let has_all = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref();
        wanted_labels.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    };
    let count =
        |test: &dyn Fn(&Pod) -> bool| Some(number(active.iter().filter(|pod| test(pod)).count())).filter(|n| *n > 0);
    ReplicaSetStatus {
        replicas: number(active.len()),
        fully_labeled_replicas: count(&has_all),
        ready_replicas: count(&pods::is_ready),
        available_replicas: count(&|pod| pods::available(pod, min_ready, now).is_ok()),
        terminating_replicas: Some(number(terminating)),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, failures, now),
    }
}

fn conditions(set: &ReplicaSet, failures: &Failures, now: Timestamp) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let failure = match (&failures.create, &failures.delete) {
        (Some(message), _) => Some(("FailedCreate", message)),
        (None, Some(message)) => Some(("FailedDelete", message)),
        (None, None) => None,
    };
    let known = conditions.iter().any(|condition| condition.type_ == "ReplicaFailure");
    match failure {
        Some((reason, message)) if !known => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message.clone()),
            last_transition_time: Some(Time(now)),
        }),
        None if known => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
        _ => (),
    }
    Some(conditions).filter(|all| !all.is_empty())
}

/// Seconds until the next ready pod becomes available.
pub(crate) fn next_availability(min_ready_seconds: i32, active: &[Arc<Pod>], now: Timestamp) -> Option<u64> {
    let missing = active.iter().filter_map(|pod| pods::available(pod, min_ready_seconds, now).err().flatten());
    missing.min().map(|seconds| u64::try_from(seconds).unwrap_or(0).max(1))
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
