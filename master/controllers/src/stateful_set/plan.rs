//! Which pods a StatefulSet makes, deletes and waits for. Pure (`pkg/controller/statefulset/stateful_set_control.go`).

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use api::pod::is_terminal;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::{POD_NAME_LABEL, revision_of};
use crate::deployment::scaled;
use crate::pods;

/// What a decision needs to know.
pub(super) struct Facts<'a> {
    pub set: &'a StatefulSet,
    pub spec: &'a StatefulSetSpec,
    /// The pods that the set owns and that are named as its members are.
    pub pods: &'a [Arc<Pod>],
    /// The names of the revisions that pods come from and go to.
    pub current: &'a str,
    pub update: &'a str,
    pub now: Timestamp,
}

/// One thing to be done, in order; what fails ends the pass.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A new member, of the new revision or still of the old one.
    Create {
        ordinal: i32,
        updated: bool,
    },
    /// The claims of a member that waits for them.
    Claims(i32),
    /// A member has lost the label with its name.
    Label(Arc<Pod>),
    Delete(Arc<Pod>),
}

#[derive(Debug)]
pub(super) struct Plan {
    pub steps: Vec<Step>,
    pub status: StatefulSetStatus,
    /// When a pod will have been ready for long enough, in seconds.
    pub look_again: Option<u64>,
}

pub(super) fn plan(facts: &Facts<'_>) -> Plan {
    let mut steps = Vec::new();
    if facts.set.metadata.deletion_timestamp.is_none() {
        // What blocks only ends the list of steps.
        let _ = decide(facts, &mut steps);
    }
    let waits = |pod: &Arc<Pod>| pods::available(pod, min_ready(facts), facts.now).err().flatten();
    let look_again = facts.pods.iter().filter_map(waits).filter_map(|left| u64::try_from(left).ok()).min();
    Plan { steps, status: status(facts), look_again }
}

/// The ordinal in a pod's name, if it is a name of a member of this set.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let (parent, digits) = pod.metadata.name.as_deref()?.rsplit_once('-')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (set.metadata.name.as_deref() == Some(parent) && is_number).then(|| digits.parse().ok())?
}

/// The first ordinal, and the one after the last.
pub(super) fn range(spec: &StatefulSetSpec) -> std::ops::Range<i32> {
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    start..start.saturating_add(spec.replicas.unwrap_or(1))
}

fn min_ready(facts: &Facts<'_>) -> i32 {
    facts.spec.min_ready_seconds.unwrap_or(0)
}

fn is_available(facts: &Facts<'_>, pod: &Pod) -> bool {
    pods::phase(pod) == "Running"
        && pods::available(pod, min_ready(facts), facts.now).is_ok()
        && pod.metadata.deletion_timestamp.is_none()
}

fn decide(facts: &Facts<'_>, steps: &mut Vec<Step>) -> ControlFlow<()> {
    let ordered = facts.spec.pod_management_policy.as_deref() != Some("Parallel");
    let range = range(facts.spec);
    let mut by_ordinal: HashMap<i32, &Arc<Pod>> = HashMap::new();
    for pod in facts.pods {
        if let Some(at) = ordinal(facts.set, pod) {
            by_ordinal.entry(at).or_insert(pod);
        }
    }
    let members: Vec<(i32, Option<&Arc<Pod>>)> = range.clone().map(|at| (at, by_ordinal.get(&at).copied())).collect();
    for (at, pod) in &members {
        let flow = keep(facts, *at, *pod, steps);
        if ordered {
            flow?;
        }
    }
    let mut condemned: Vec<&Arc<Pod>> =
        facts.pods.iter().filter(|pod| ordinal(facts.set, pod).is_some_and(|at| !range.contains(&at))).collect();
    condemned.sort_by_key(|pod| Reverse(ordinal(facts.set, pod)));
    let first_ill = condemned.iter().rev().find(|pod| !is_available(facts, pod)).copied();
    for pod in condemned {
        if pod.metadata.deletion_timestamp.is_some() {
            if ordered {
                return ControlFlow::Break(());
            }
            continue;
        }
        let is_first_ill = first_ill.is_some_and(|ill| Arc::ptr_eq(ill, pod));
        if ordered && !is_available(facts, pod) && !is_first_ill {
            return ControlFlow::Break(());
        }
        steps.push(Step::Delete(pod.clone()));
        if ordered {
            return ControlFlow::Break(());
        }
    }
    update(facts, &members, steps);
    ControlFlow::Continue(())
}

/// Looks after one member; breaks off where the ones behind it have to wait.
fn keep(facts: &Facts<'_>, at: i32, pod: Option<&Arc<Pod>>, steps: &mut Vec<Step>) -> ControlFlow<()> {
    let Some(pod) = pod else {
        steps.push(Step::Create { ordinal: at, updated: is_updated(facts.spec, at) });
        return ControlFlow::Break(());
    };
    if is_terminal(pod) {
        if pod.metadata.deletion_timestamp.is_none() {
            steps.push(Step::Delete(pod.clone()));
        }
        return ControlFlow::Break(());
    }
    if pods::phase(pod) == "Pending" {
        steps.push(Step::Claims(at));
    }
    if !is_available(facts, pod) {
        return ControlFlow::Break(());
    }
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(POD_NAME_LABEL));
    if label != pod.metadata.name.as_ref() {
        steps.push(Step::Label(pod.clone()));
    }
    ControlFlow::Continue(())
}

/// Whether a new member is made of the new template: those below the partition stay as they were.
fn is_updated(spec: &StatefulSetSpec, at: i32) -> bool {
    let rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
    at >= range(spec).start.saturating_add(partition)
}

/// Deletes members of other revisions, from the end, as many as may be unavailable.
fn update(facts: &Facts<'_>, members: &[(i32, Option<&Arc<Pod>>)], steps: &mut Vec<Step>) {
    let strategy = facts.spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let one = IntOrString::Int(1);
    let most = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&one);
    let most = scaled(most, facts.spec.replicas.unwrap_or(1), false).max(1);
    let ill = members.iter().filter(|(_, pod)| pod.is_none_or(|pod| !is_available(facts, pod))).count();
    let left = usize::try_from(most).unwrap_or(1).saturating_sub(ill);
    let is_old = |pod: &&Arc<Pod>| revision_of(pod) != facts.update && pod.metadata.deletion_timestamp.is_none();
    let updated = members.iter().rev().filter(|(at, _)| is_updated(facts.spec, *at));
    let old = updated.filter_map(|(_, pod)| *pod).filter(is_old);
    steps.extend(old.take(left).map(|pod| Step::Delete(pod.clone())));
}

fn status(facts: &Facts<'_>) -> StatefulSetStatus {
    let count =
        |is: &dyn Fn(&Pod) -> bool| i32::try_from(facts.pods.iter().filter(|pod| is(pod)).count()).unwrap_or(i32::MAX);
    let is_ready = |pod: &Pod| pods::phase(pod) == "Running" && pods::is_ready(pod);
    let stays = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
    let (replicas, ready) = (count(&|_| true), count(&is_ready));
    let available = count(&|pod| is_ready(pod) && pods::available(pod, min_ready(facts), facts.now).is_ok());
    let updated = count(&|pod| stays(pod) && revision_of(pod) == facts.update);
    let mut current = (facts.current, count(&|pod| stays(pod) && revision_of(pod) == facts.current));
    let wanted = facts.spec.replicas.unwrap_or(1);
    let strategy = facts.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    if strategy == Some("RollingUpdate") && [updated, ready, replicas] == [wanted; 3] {
        current = (facts.update, updated);
    }
    let some = |count: i32| Some(count).filter(|count| *count != 0);
    let old = facts.set.status.as_ref();
    StatefulSetStatus {
        available_replicas: Some(available),
        collision_count: Some(old.and_then(|old| old.collision_count).unwrap_or(0)),
        conditions: old.and_then(|old| old.conditions.clone()),
        current_replicas: some(current.1),
        current_revision: Some(current.0.to_owned()),
        observed_generation: facts.set.metadata.generation,
        ready_replicas: some(ready),
        replicas,
        update_revision: Some(facts.update.to_owned()),
        updated_replicas: some(updated),
    }
}
