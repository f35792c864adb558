//! `status.conditions`.

use api::conditions;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};

use crate::plan::{Role, restart_all};
use crate::status::{containers::find, resources, seconds};
use crate::view::{Cause, View};

const TRUE: &str = "True";
const FALSE: &str = "False";

/// Conditions that a node owns, in the order of a kubelet.
const OWN: [&str; 6] = [NETWORK_READY, INITIALIZED, "Ready", "ContainersReady", "PodScheduled", ALL_RESTARTING];
/// All containers are removed to start anew (KEP-5532).
pub(super) const ALL_RESTARTING: &str = "AllContainersRestarting";
const INITIALIZED: &str = "Initialized";
/// Those of resizes, which a node owns too; of a pod that has ended they go.
const RESIZE: [&str; 2] = [resources::PENDING, resources::IN_PROGRESS];
const NETWORK_READY: &str = "PodReadyToStartContainers";
/// A node writes it, as others do (KEP-3329).
const DISRUPTION: &str = "DisruptionTarget";

/// Sets the conditions that a node owns; others (readiness gates) stay as the API has them.
pub(super) fn fill(view: &View<'_>, pod: &Pod, status: &mut PodStatus) {
    let old = status.conditions.take().unwrap_or_default();
    let containers_ready = containers_ready(view, status);
    let foreign = foreign(view, pod, &old);
    let ready = ready(view, &containers_ready, &foreign);
    let scheduled = match conditions::get(&old, "PodScheduled") {
        Some(scheduled) => PodCondition { type_: "PodScheduled".to_owned(), ..scheduled.clone() },
        None => condition("PodScheduled", TRUE),
    };
    let own = [network_ready(view), initialized(view, &old, status), ready, containers_ready, scheduled];
    let own: Vec<PodCondition> = own.into_iter().chain(all_restarting(view, status)).collect();
    let mut all: Vec<PodCondition> = Vec::with_capacity(own.len() + foreign.len());
    for mut condition in own {
        let before = conditions::get(&old, &condition.type_).filter(|before| before.status == condition.status);
        let kept = before.and_then(|before| before.last_transition_time.as_ref()).map(|time| time.0);
        conditions::AnyCondition::set_transition(&mut condition, kept.unwrap_or(seconds(view.world.now).0));
        condition.observed_generation = pod.metadata.generation;
        all.push(condition);
    }
    all.extend(foreign);
    if !api::pod::is_terminal_phase(status.phase.as_deref()) {
        all.extend(resources::conditions(view, &old));
    }
    status.conditions = Some(all);
}

/// Whether somebody else has changed a condition that is the node's: the controller of nodes does it to pods of a node that was silent.
pub(super) fn overwritten(ours: &PodStatus, theirs: &PodStatus) -> bool {
    let theirs = theirs.conditions.as_deref().unwrap_or_default();
    let mut own = ours.conditions.iter().flatten().filter(|condition| is_own(condition));
    own.any(|condition| conditions::get(theirs, &condition.type_).is_none_or(|other| other.status != condition.status))
}

/// Of a pod that has ended: the conditions of others, and that it has no sandbox any more.
pub(super) fn settle(view: &View<'_>, pod: &Pod, status: &mut PodStatus) {
    let old = status.conditions.take().unwrap_or_default();
    let mut all: Vec<PodCondition> = old.iter().filter(|old| is_own(old)).cloned().collect();
    if conditions::is_true(&all, NETWORK_READY) {
        conditions::set(&mut all, observed(pod, network_ready(view)), seconds(view.world.now).0);
    }
    all.extend(foreign(view, pod, &old));
    status.conditions = (!all.is_empty()).then_some(all);
}

fn is_own(condition: &PodCondition) -> bool {
    OWN.contains(&condition.type_.as_str())
}

fn is_of_node(condition: &PodCondition) -> bool {
    is_own(condition) || RESIZE.contains(&condition.type_.as_str())
}

fn observed(pod: &Pod, condition: PodCondition) -> PodCondition {
    PodCondition { observed_generation: pod.metadata.generation, ..condition }
}

/// The conditions of others. A status is written as a whole, so that what others wrote since the last one must be in
/// it. A pod that the node itself ends has `DisruptionTarget` once it has ended.
fn foreign(view: &View<'_>, pod: &Pod, old: &[PodCondition]) -> Vec<PodCondition> {
    let from_api = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    let mut all: Vec<PodCondition> =
        from_api.unwrap_or(old).iter().filter(|condition| !is_of_node(condition)).cloned().collect();
    let known = conditions::get(old, DISRUPTION).filter(|_| conditions::get(&all, DISRUPTION).is_none()).cloned();
    all.extend(known);
    let has_ended = !view.was_terminal() && view.live().next().is_none();
    let eviction = view.world.eviction.as_ref().filter(|_| has_ended);
    if let Some(message) = eviction.and_then(|eviction| eviction.disruption.clone()) {
        let told = PodCondition {
            reason: Some("TerminationByKubelet".to_owned()),
            message: Some(message),
            ..condition(DISRUPTION, TRUE)
        };
        conditions::set(&mut all, observed(pod, told), seconds(view.world.now).0);
    }
    all
}

fn condition(type_name: &str, status: &str) -> PodCondition {
    PodCondition { type_: type_name.to_owned(), status: status.to_owned(), ..PodCondition::default() }
}

fn refused(type_name: &str, reason: &str, message: Option<String>) -> PodCondition {
    PodCondition { reason: Some(reason.to_owned()), message, ..condition(type_name, FALSE) }
}

/// `PodReadyToStartContainers`: sandbox and network are there (KEP-3085).
fn network_ready(view: &View<'_>) -> PodCondition {
    let host_network = view.spec.host_network.unwrap_or(false);
    let ready = view.sandbox.is_some_and(|sandbox| sandbox.ready && (host_network || !sandbox.ips.is_empty()));
    condition(NETWORK_READY, if ready { TRUE } else { FALSE })
}

/// Of pods that this can happen to.
fn all_restarting(view: &View<'_>, status: &PodStatus) -> Option<PodCondition> {
    let told = match status.phase.as_deref() {
        _ if !restart_all::is_possible(view) => return None,
        Some("Succeeded") => refused(ALL_RESTARTING, "PodCompleted", None),
        Some("Failed") => refused(ALL_RESTARTING, "PodFailed", None),
        _ if !restart_all::is_due(view) => condition(ALL_RESTARTING, FALSE),
        _ => PodCondition {
            reason: Some("RestartAllContainersStarted".to_owned()),
            message: Some("container exited with restart policy rule".to_owned()),
            ..condition(ALL_RESTARTING, TRUE)
        },
    };
    Some(told)
}

fn initialized(view: &View<'_>, old: &[PodCondition], status: &PodStatus) -> PodCondition {
    let name = INITIALIZED;
    // Once a pod is, it stays so, although its init containers run anew.
    if restart_all::is_possible(view) && status.phase.as_deref() != Some("Succeeded") && conditions::is_true(old, name)
    {
        return condition(name, TRUE);
    }
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for member in view.members().filter(|member| matches!(member.role, Role::Init | Role::Sidecar)) {
        match find(status.init_container_statuses.as_ref(), &member.spec.name) {
            None => unknown.push(member.spec.name.clone()),
            Some(status) => {
                let done = if member.role == Role::Sidecar { status.started == Some(true) } else { status.ready };
                if !done {
                    incomplete.push(member.spec.name.clone());
                }
            }
        }
    }
    if status.phase.as_deref() == Some("Succeeded") && unknown.is_empty() {
        return PodCondition { reason: Some("PodCompleted".to_owned()), ..condition(name, TRUE) };
    }
    // Also in a new sandbox, whose init containers run anew.
    let mut states = status.container_statuses.iter().flatten().filter_map(|status| status.state.as_ref());
    let has_begun = states.any(|state| state.running.is_some() || state.terminated.is_some());
    if has_begun || (unknown.is_empty() && incomplete.is_empty()) {
        return condition(name, TRUE);
    }
    refused(name, "ContainersNotInitialized", listed(&unknown, "incomplete", &incomplete))
}

fn containers_ready(view: &View<'_>, status: &PodStatus) -> PodCondition {
    let name = "ContainersReady";
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for member in view.members().filter(|member| matches!(member.role, Role::Sidecar | Role::App)) {
        let list = if member.role == Role::App { &status.container_statuses } else { &status.init_container_statuses };
        match find(list.as_ref(), &member.spec.name) {
            None => unknown.push(member.spec.name.clone()),
            Some(status) if !status.ready => unready.push(member.spec.name.clone()),
            Some(_) => {}
        }
    }
    // Such a pod is refused its Services before it has come to its end.
    let is_overdue = view.ending().is_some_and(|ending| ending.cause == Cause::DeadlineExceeded);
    match status.phase.as_deref() {
        _ if is_overdue => refused(name, "PodFailed", None),
        Some("Succeeded") if unknown.is_empty() => refused(name, "PodCompleted", None),
        Some("Failed") => refused(name, "PodFailed", None),
        _ if unknown.is_empty() && unready.is_empty() => condition(name, TRUE),
        _ => refused(name, "ContainersNotReady", listed(&unknown, "unready", &unready)),
    }
}

fn ready(view: &View<'_>, containers_ready: &PodCondition, foreign: &[PodCondition]) -> PodCondition {
    if containers_ready.status != TRUE {
        return PodCondition { type_: "Ready".to_owned(), ..containers_ready.clone() };
    }
    let mut messages = Vec::new();
    for gate in view.spec.readiness_gates.iter().flatten() {
        let gate = &gate.condition_type;
        match conditions::get(foreign, gate) {
            None => messages.push(format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")),
            Some(condition) if condition.status != TRUE => messages
                .push(format!("the status of pod readiness gate \"{gate}\" is not \"True\", but {}", condition.status)),
            Some(_) => {}
        }
    }
    if messages.is_empty() {
        return condition("Ready", TRUE);
    }
    refused("Ready", "ReadinessGatesNotReady", Some(messages.join(", ")))
}

fn listed(unknown: &[String], what: &str, others: &[String]) -> Option<String> {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: [{}]", unknown.join(" ")));
    }
    if !others.is_empty() {
        parts.push(format!("containers with {what} status: [{}]", others.join(" ")));
    }
    Some(parts.join(", "))
}
