//! Ending a pod: containers, sandbox, and for good: what they leave behind, volumes, cgroup, API object.
//!
//! Each call looks for the first thing that is not done yet; so it resumes wherever it was interrupted.

use jiff::Timestamp;

use crate::backoff::seconds_later;
use crate::plan::{Event, KillContainer, Plan, PreStop, Role, Step, run};
use crate::view::{Cause, Ending, View};
use crate::world::{Admission, Container, ContainerState, Desired, Stage};

/// What a container gets at least, however short the grace period is or what is left of it (`minimumGracePeriodInSeconds`).
pub const MINIMUM_GRACE: i64 = 2;

pub(super) fn plan(view: &View<'_>, ending: &Ending, plan: &mut Plan) {
    announce(view, ending, plan);
    kill_containers(view, ending, plan);
    if view.live().next().is_some() || !run::may_try(view, &Stage::Teardown, plan) {
        return;
    }
    let observed = &view.world.observed;
    let unstopped = observed.sandboxes.iter().filter(|sandbox| !sandbox.stopped);
    plan.steps.extend(unstopped.map(|sandbox| Step::StopSandbox { id: sandbox.id.clone() }));
    // What is being made would else come back after it was torn down, and stay.
    if !plan.steps.is_empty() || observed.making_sandbox || !observed.starting.is_empty() {
        return;
    }
    match (ending.cause, &view.world.desired) {
        (Cause::Gone, Desired::Gone { returns: true, .. }) => {
            // By its dead containers the next life knows how often they were started, as in a kubelet.
            release(view, plan);
            plan.done = plan.steps.is_empty();
        }
        (Cause::Deleted | Cause::Gone, _) => remove(view, plan),
        _ => {
            release(view, plan);
            if plan.steps.is_empty() {
                clear(view, plan);
            }
        }
    }
}

fn announce(view: &View<'_>, ending: &Ending, plan: &mut Plan) {
    if view.was_terminal() {
        return;
    }
    match (ending.cause, &view.world.admission, &view.world.eviction) {
        (Cause::Rejected, Some(Admission::Rejected { reason, message }), _) => {
            plan.events.push(Event::warning(reason, message));
            plan.steps.push(Step::Reject { reason: reason.clone(), message: message.clone() });
        }
        (Cause::Evicted, _, Some(eviction)) if eviction.event => {
            let event = Event::warning(&eviction.reason, &eviction.message);
            plan.events.push(event.annotated(&eviction.annotations));
        }
        (Cause::DeadlineExceeded, _, _) => {
            plan.events.push(Event::normal("DeadlineExceeded", crate::status::DEADLINE_MESSAGE));
        }
        _ => {}
    }
}

/// Init, app and ephemeral containers at once; then the sidecars one by one, the last started first (KEP-753). Their preStop hooks all
/// begin at once, and when the grace period is over, nobody waits for a turn any more.
fn kill_containers(view: &View<'_>, ending: &Ending, plan: &mut Plan) {
    let sidecars: Vec<String> =
        view.members().filter(|member| member.role == Role::Sidecar).map(|member| member.spec.name.clone()).collect();
    let order = |container: &Container| sidecars.iter().position(|name| *name == container.name);
    let first_turn = view.live().any(|container| order(container).is_none());
    let turn = if first_turn { None } else { view.live().filter_map(order).max() };
    let now = view.world.now;
    let over = seconds_later(begun(view, ending).unwrap_or(now), ending.grace);
    for container in view.live() {
        let place = order(container);
        if place != turn && now < over {
            pre_stop(view, container, ending.grace, plan);
            plan.wake(over);
            continue;
        }
        let hook = view.world.observed.pre_stops.get(&container.id);
        if hook.is_some_and(|hook| hook.running) && now < over {
            plan.wake(over);
            continue;
        }
        let grace = match (place, begun(view, ending)) {
            (Some(_), Some(begun)) => {
                let left = ending.grace - now.duration_since(begun).as_secs();
                left.clamp(MINIMUM_GRACE.min(ending.grace), ending.grace)
            }
            _ => ending.grace,
        };
        kill(view, container, grace, plan);
    }
}

/// Once.
fn pre_stop(view: &View<'_>, container: &Container, limit: i64, plan: &mut Plan) {
    let observed = &view.world.observed;
    let is_done = observed.pre_stops.contains_key(&container.id) || observed.kills.contains_key(&container.id);
    let member = view.members().find(|member| member.spec.name == container.name);
    let hook =
        member.and_then(|member| member.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.clone()));
    if hook.is_some() && !is_done && container.state == ContainerState::Running {
        let (id, name) = (container.id.clone(), container.name.clone());
        plan.steps.push(Step::PreStop(PreStop { id, name, limit }));
    }
}

/// When the containers began to be killed for this end; `None` when none was, or when that was forgotten.
fn begun(view: &View<'_>, ending: &Ending) -> Option<Timestamp> {
    // Kills by probes, some time before the pod was deleted, count for nothing.
    let meta = view.pod.map(|pod| &pod.metadata).filter(|meta| meta.deletion_timestamp.is_some());
    let asked = meta.and_then(|meta| {
        let grace = meta.deletion_grace_period_seconds.unwrap_or(0);
        meta.deletion_timestamp.as_ref().map(|at| seconds_later(at.0, -grace))
    });
    // Nor do those by which the containers of a pod that is complete may have ended: only its sidecars are left to kill.
    let counts = |role: Role| ending.cause != Cause::Completed || role == Role::Sidecar;
    let observed = &view.world.observed;
    let members = view.members().filter(|member| counts(member.role));
    let latest = members.filter_map(|member| view.latest(&member.spec.name).map(|latest| latest.id.clone()));
    let begun = latest.flat_map(|id| {
        let kill = observed.kills.get(&id).map(|kill| kill.at);
        kill.into_iter().chain(observed.pre_stops.get(&id).map(|hook| hook.at))
    });
    begun.filter(|at| asked.is_none_or(|asked| *at >= asked)).min()
}

/// Once; again when that failed, or when less grace is given now.
fn kill(view: &View<'_>, container: &Container, grace: i64, plan: &mut Plan) {
    let now = view.world.now;
    if let Some(kill) = view.world.observed.kills.get(&container.id).filter(|kill| kill.running) {
        // What is left is counted in whole seconds: up to one second less is no less.
        if seconds_later(now, grace.saturating_add(1)) > seconds_later(kill.at, kill.grace) {
            return;
        }
    } else if !run::may_try(view, &Stage::Kill(container.name.clone()), plan) {
        return;
    }
    let has_hooked = view.world.observed.pre_stops.contains_key(&container.id);
    plan.steps.push(Step::KillContainer(KillContainer {
        id: container.id.clone(),
        name: container.name.clone(),
        grace,
        pre_stop: container.state == ContainerState::Running && !has_hooked,
        restarts: false,
        reason: "Killing".to_owned(),
        message: format!("Stopping container {}", container.name),
    }));
}

/// A pod that ended but still has its object keeps, unless it was evicted, its dead containers and sandbox, for their logs.
fn release(view: &View<'_>, plan: &mut Plan) {
    let prepared = view.world.observed.prepared;
    if prepared.volumes || prepared.volumes_on_disk {
        plan.steps.push(Step::UnmountVolumes);
    }
    if prepared.cgroup {
        plan.steps.push(Step::RemoveCgroup);
    }
}

/// What an evicted pod wrote goes, too: the node may be short of just that (`ShouldPodContentBeRemoved`).
fn clear(view: &View<'_>, plan: &mut Plan) {
    let is_due = view.world.eviction.as_ref().is_some_and(|eviction| eviction.clears);
    if is_due && view.was_terminal() && view.world.published {
        remove_from_runtime(view, plan);
    }
}

/// Containers, and then the sandboxes that they lay in.
fn remove_from_runtime(view: &View<'_>, plan: &mut Plan) {
    let observed = &view.world.observed;
    let containers = observed.containers.iter();
    plan.steps.extend(
        containers.map(|container| Step::RemoveContainer { id: container.id.clone(), name: container.name.clone() }),
    );
    if plan.steps.is_empty() {
        plan.steps.extend(observed.sandboxes.iter().map(|sandbox| Step::RemoveSandbox { id: sandbox.id.clone() }));
    }
}

fn remove(view: &View<'_>, plan: &mut Plan) {
    let present = matches!(view.world.desired, Desired::Present(_));
    let observed = &view.world.observed;
    // While the API has not heard how the containers ended, they stay: they are the only ones to know.
    if present && !observed.containers.is_empty() && !(view.world.published && is_end_known(view)) {
        return;
    }
    remove_from_runtime(view, plan);
    if plan.steps.is_empty() && (observed.prepared.volumes || observed.prepared.volumes_on_disk) {
        plan.steps.push(Step::UnmountVolumes);
    }
    if plan.steps.is_empty() && observed.prepared.cgroup {
        plan.steps.push(Step::RemoveCgroup);
    }
    if !plan.steps.is_empty() {
        return;
    }
    if present && view.world.source.is_api() {
        if view.world.published {
            plan.steps.push(Step::FinaliseDeletion);
        }
    } else {
        plan.done = true;
    }
}

/// Whether the status that was computed last has the end of every container, or is final: what was created when the pod was ending and
/// never ran is not told any more.
fn is_end_known(view: &View<'_>) -> bool {
    view.was_terminal()
        || view.members().all(|member| {
            let Some(container) = view.latest(&member.spec.name) else { return true };
            if !matches!(container.state, ContainerState::Exited { .. }) {
                return true;
            }
            // A later run was told of, and only its container is removed already.
            if view.is_outdated(container) {
                return true;
            }
            let state = view.same_as_before(container).and_then(|status| status.state.as_ref());
            state.is_some_and(|state| state.terminated.is_some())
        })
}
