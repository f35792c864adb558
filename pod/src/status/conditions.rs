//! `status.conditions`.

use api::conditions;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};

use crate::plan::Role;
use crate::view::View;

const TRUE: &str = "True";
const FALSE: &str = "False";

/// Sets the conditions that a node owns, in the order of a kubelet; others (`DisruptionTarget`, readiness gates) stay.
pub(super) fn fill(view: &View<'_>, pod: &Pod, status: &mut PodStatus) {
    let old = status.conditions.take().unwrap_or_default();
    let containers_ready = containers_ready(view, status);
    let ready = ready(view, &containers_ready, &old);
    let scheduled = match conditions::get(&old, "PodScheduled") {
        Some(scheduled) => PodCondition { type_: "PodScheduled".to_owned(), ..scheduled.clone() },
        None => condition("PodScheduled", TRUE),
    };
    let own = [network_ready(view), initialized(view, status), ready, containers_ready, scheduled];
    let is_own = |condition: &PodCondition| own.iter().any(|own| own.type_ == condition.type_);
    let foreign: Vec<PodCondition> = old.iter().filter(|condition| !is_own(condition)).cloned().collect();
    let mut all: Vec<PodCondition> = Vec::with_capacity(own.len() + foreign.len());
    for mut condition in own {
        let before = conditions::get(&old, &condition.type_).filter(|before| before.status == condition.status);
        let kept = before.and_then(|before| before.last_transition_time.as_ref()).map(|time| time.0);
        conditions::AnyCondition::set_transition(
            &mut condition,
            kept.unwrap_or(crate::status::seconds(view.world.now).0),
        );
        condition.observed_generation = pod.metadata.generation;
        all.push(condition);
    }
    all.extend(foreign);
    status.conditions = Some(all);
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
    condition("PodReadyToStartContainers", if ready { TRUE } else { FALSE })
}

fn initialized(view: &View<'_>, status: &PodStatus) -> PodCondition {
    let name = "Initialized";
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
    if view.is_initialized() || (unknown.is_empty() && incomplete.is_empty()) {
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
    match status.phase.as_deref() {
        Some("Succeeded") if unknown.is_empty() => refused(name, "PodCompleted", None),
        Some("Failed") if unknown.is_empty() => refused(name, "PodFailed", None),
        _ if unknown.is_empty() && unready.is_empty() => condition(name, TRUE),
        _ => refused(name, "ContainersNotReady", listed(&unknown, "unready", &unready)),
    }
}

fn ready(view: &View<'_>, containers_ready: &PodCondition, old: &[PodCondition]) -> PodCondition {
    if containers_ready.status != TRUE {
        return PodCondition { type_: "Ready".to_owned(), ..containers_ready.clone() };
    }
    let mut messages = Vec::new();
    for gate in view.spec.readiness_gates.iter().flatten() {
        let gate = &gate.condition_type;
        match conditions::get(old, gate) {
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

fn find<'a>(statuses: Option<&'a Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    statuses.into_iter().flatten().find(|status| status.name == name)
}
