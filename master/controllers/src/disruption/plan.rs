//! How many pods of a budget may be evicted now. Pure (`pkg/controller/disruption`).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::deployment::scaled;
use crate::pods;

/// An eviction that was allowed, and whose pod is still there after this long, has not happened.
const EVICTION: SignedDuration = SignedDuration::from_secs(120);
const ALLOWED: &str = "DisruptionAllowed";

/// Whether the budget is about a pod: no selector selects none, the empty one all.
pub(super) fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let none = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    selector.is_some_and(|selector| api::selector::label_selector_matches(selector, labels))
}

/// The status, and when time alone changes it. `scale` is how many pods the controllers of these pods want.
pub(super) fn status(
    budget: &PodDisruptionBudget,
    covered: &[Arc<Pod>],
    scale: i32,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<SignedDuration>) {
    let old = budget.status.clone().unwrap_or_default();
    let (expected, desired) = counts(budget, number(covered.len()), scale);
    let (disrupted, wake) = disrupted(&old, covered, now);
    let is_healthy = |pod: &&Arc<Pod>| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        pods::is_ready(pod) && pod.metadata.deletion_timestamp.is_none() && !disrupted.contains_key(name)
    };
    let healthy = number(covered.iter().filter(is_healthy).count());
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let status = PodDisruptionBudgetStatus {
        conditions: Some(conditions(&old, budget.metadata.generation, allowed, now)),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
    };
    (status, wake)
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// How many pods there should be, and how many of them healthy.
fn counts(budget: &PodDisruptionBudget, covered: i32, scale: i32) -> (i32, i32) {
    let Some(spec) = &budget.spec else { return (0, 0) };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (scale, (scale - scaled(most, scale, true)).max(0)),
        (None, Some(IntOrString::Int(least))) => (covered, *least),
        (None, Some(share)) => (scale, scaled(share, scale, true)),
        (None, None) => (0, 0),
    }
}

/// Evictions that are on their way, and when the oldest of them counts as failed.
fn disrupted(
    old: &PodDisruptionBudgetStatus,
    covered: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<SignedDuration>) {
    let mut wake = None;
    let mut kept = BTreeMap::new();
    for (name, since) in old.disrupted_pods.iter().flatten() {
        let waits =
            |pod: &&Arc<Pod>| pod.metadata.name.as_ref() == Some(name) && pod.metadata.deletion_timestamp.is_none();
        let left = EVICTION - now.duration_since(since.0);
        if covered.iter().find(waits).is_none() || !left.is_positive() {
            continue;
        }
        wake = Some(wake.map_or(left, |wake: SignedDuration| wake.min(left)));
        kept.insert(name.clone(), since.clone());
    }
    (kept, wake)
}

fn conditions(
    old: &PodDisruptionBudgetStatus,
    generation: Option<i64>,
    allowed: i32,
    now: Timestamp,
) -> Vec<Condition> {
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let known = conditions.iter().find(|condition| condition.type_ == ALLOWED && condition.status == status);
    let since = known.map_or(Time(now), |condition| condition.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != ALLOWED);
    conditions.push(Condition {
        type_: ALLOWED.into(),
        status: status.into(),
        reason: reason.into(),
        message: String::new(),
        last_transition_time: since,
        observed_generation: generation,
    });
    conditions
}
