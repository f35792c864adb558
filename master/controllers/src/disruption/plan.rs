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

/// Whether it takes the controllers of the pods to say how many there should be.
pub(super) fn asks_controllers(budget: &PodDisruptionBudget) -> bool {
    budget.spec.as_ref().is_some_and(|spec| {
        spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
    })
}

/// What is to be said of a budget, and of its pods.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) status: PodDisruptionBudgetStatus,
    /// When time alone changes it.
    pub(super) wake: Option<SignedDuration>,
    /// Pods whose eviction was allowed, and that are still there.
    pub(super) not_deleted: Vec<Arc<Pod>>,
}

/// `scale` is how many pods the controllers of these pods want.
pub(super) fn status(budget: &PodDisruptionBudget, covered: &[Arc<Pod>], scale: i32, now: Timestamp) -> Decision {
    let old = budget.status.clone().unwrap_or_default();
    let (expected, desired) = counts(budget, number(covered.len()), scale);
    let Disrupted { kept, wake, not_deleted } = disrupted(&old, covered, now);
    let is_healthy = |pod: &&Arc<Pod>| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        pods::is_ready(pod) && pod.metadata.deletion_timestamp.is_none() && !kept.contains_key(name)
    };
    let healthy = number(covered.iter().filter(is_healthy).count());
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let said = if allowed > 0 { ("True", "SufficientPods", "") } else { ("False", "InsufficientPods", "") };
    let status = PodDisruptionBudgetStatus {
        conditions: Some(conditions(&old, budget.metadata.generation, said, now)),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: Some(kept).filter(|pods| !pods.is_empty()),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
    };
    Decision { status, wake, not_deleted }
}

/// The status when it is not known how many pods there should be: nothing is evicted until it is (`failSafe`).
pub(super) fn failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    PodDisruptionBudgetStatus {
        conditions: Some(conditions(&old, old.observed_generation, ("False", "SyncFailed", why), now)),
        current_healthy: Some(old.current_healthy.unwrap_or(0)),
        desired_healthy: Some(old.desired_healthy.unwrap_or(0)),
        disruptions_allowed: Some(0),
        expected_pods: Some(old.expected_pods.unwrap_or(0)),
        ..old
    }
}

/// Of a budget whose pods are not all some controller's. The selector is written as Go does.
pub(super) fn unmanaged(budget: &PodDisruptionBudget) -> String {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let labels = selector.and_then(|selector| selector.match_labels.as_ref()).into_iter().flatten();
    let labels: String = labels.map(|(key, value)| format!("{key}: {value},")).collect();
    let rules = selector.and_then(|selector| selector.match_expressions.as_ref()).into_iter().flatten();
    let rules = rules.map(|rule| {
        let values = rule.values.as_deref().unwrap_or_default().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", rule.key, rule.operator)
    });
    let rules: String = rules.collect();
    format!(
        "Pods selected by this PodDisruptionBudget (selector: &LabelSelector{{MatchLabels:map[string]string{{{labels}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{rules}}},}}) were found to be unmanaged. As a result, the status of the \
         PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \
         \".spec.minAvailable\" field of the PDB to an integer value."
    )
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

/// Evictions that were allowed.
#[derive(Default)]
struct Disrupted {
    /// Those that are on their way.
    kept: BTreeMap<String, Time>,
    /// When the oldest of them counts as failed.
    wake: Option<SignedDuration>,
    /// The pods of those that failed.
    not_deleted: Vec<Arc<Pod>>,
}

fn disrupted(old: &PodDisruptionBudgetStatus, covered: &[Arc<Pod>], now: Timestamp) -> Disrupted {
    let mut found = Disrupted::default();
    for (name, since) in old.disrupted_pods.iter().flatten() {
        let waits =
            |pod: &&Arc<Pod>| pod.metadata.name.as_ref() == Some(name) && pod.metadata.deletion_timestamp.is_none();
        let Some(pod) = covered.iter().find(waits) else { continue };
        let left = EVICTION - now.duration_since(since.0);
        if !left.is_positive() {
            found.not_deleted.push(Arc::clone(pod));
            continue;
        }
        found.wake = Some(found.wake.map_or(left, |wake| wake.min(left)));
        found.kept.insert(name.clone(), since.clone());
    }
    found
}

fn conditions(
    old: &PodDisruptionBudgetStatus,
    generation: Option<i64>,
    (status, reason, message): (&str, &str, &str),
    now: Timestamp,
) -> Vec<Condition> {
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let known = conditions.iter().find(|condition| condition.type_ == ALLOWED && condition.status == status);
    let since = known.map_or(Time(now), |condition| condition.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != ALLOWED);
    conditions.push(Condition {
        type_: ALLOWED.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: since,
        observed_generation: generation,
    });
    conditions
}
