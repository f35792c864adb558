//! Bringing a pod up, and keeping it up.

use crate::backoff::stage_retry;
use crate::plan::{Event, Plan, Step, containers, resize, restart_all};
use crate::view::View;
use crate::world::{Sandbox, Stage};

pub(super) fn plan(view: &View<'_>, plan: &mut Plan) {
    let observed = &view.world.observed;
    let known = !observed.sandboxes.is_empty() || !observed.containers.is_empty();
    if view.world.admission.is_none() && !known {
        plan.steps.push(Step::Admit);
        return;
    }
    if let Some(deadline) = view.deadline() {
        plan.wake(deadline);
    }
    if resize::is_asked(view) {
        plan.steps.push(Step::Allocate);
        return;
    }
    if !prepare(view, plan) {
        return;
    }
    if let Some(sandbox) = sandbox(view, plan) {
        if restart_all::plan(view, plan) {
            return;
        }
        resize::plan(view, plan);
        containers::plan(view, sandbox, plan);
        collect_garbage(view, sandbox, plan);
    }
}

/// Volumes and cgroup, at the same time. Whether both are there.
fn prepare(view: &View<'_>, plan: &mut Plan) -> bool {
    let prepared = view.world.observed.prepared;
    if !prepared.cgroup && may_try(view, &Stage::Cgroup, plan) {
        plan.steps.push(Step::CreateCgroup);
    }
    if !prepared.volumes && may_try(view, &Stage::Volumes, plan) {
        plan.steps.push(Step::PrepareVolumes);
    }
    prepared.cgroup && prepared.volumes
}

/// Whether a stage has not failed, or has waited long enough since; else asks to be woken then.
pub(super) fn may_try(view: &View<'_>, stage: &Stage, plan: &mut Plan) -> bool {
    let Some(failure) = view.world.failures.get(stage) else { return true };
    let at = stage_retry(failure);
    if at > view.world.now {
        plan.wake(at);
    }
    at <= view.world.now
}

/// The sandbox to run containers in. When there is none that is ready: what must be done to get one. A sandbox that
/// died is stopped, with all that still runs in it, before the next one is made.
fn sandbox<'a>(view: &View<'a>, plan: &mut Plan) -> Option<&'a Sandbox> {
    let own_network = !view.spec.host_network.unwrap_or(false);
    // One that is being made has no address yet; any other is of no use without (`PodSandboxChanged`).
    let is_reachable = |sandbox: &Sandbox| !own_network || !sandbox.unaddressed || view.world.observed.making_sandbox;
    let is_usable = |sandbox: &&Sandbox| sandbox.ready && !sandbox.stopped && is_reachable(sandbox);
    if let Some(sandbox) = view.sandbox.filter(is_usable) {
        let others = view.world.observed.sandboxes.iter().filter(|other| other.id != sandbox.id && other.ready);
        plan.steps.extend(others.map(|other| Step::StopSandbox { id: other.id.clone() }));
        return Some(sandbox);
    }
    let before = plan.steps.len();
    for container in view.live() {
        containers::kill(view, container, containers::KillCause::SandboxDied, plan);
    }
    if plan.steps.len() > before || view.live().next().is_some() {
        return None;
    }
    let old = view.world.observed.sandboxes.iter().filter(|sandbox| !sandbox.stopped);
    plan.steps.extend(old.map(|sandbox| Step::StopSandbox { id: sandbox.id.clone() }));
    if plan.steps.len() > before || !may_try(view, &Stage::Sandbox, plan) {
        return None;
    }
    if own_network && !view.world.node.network_ready {
        plan.events
            .push(Event::warning("NetworkNotReady", "network is not ready: container runtime network not ready"));
        return None;
    }
    if view.sandbox.is_some() {
        let text = "Pod sandbox changed, it will be killed and re-created.";
        plan.events.push(Event::normal("SandboxChanged", text));
    }
    let attempt = view.sandbox.map_or(0, |sandbox| sandbox.attempt.saturating_add(1));
    plan.steps.push(Step::RunSandbox { attempt });
    None
}

/// Of each name the newest container and the one before it stay, for state and lastState and their logs; so do the
/// sandboxes that these lie in.
fn collect_garbage(view: &View<'_>, sandbox: &Sandbox, plan: &mut Plan) {
    let observed = &view.world.observed;
    for container in &observed.containers {
        let is = |other: Option<&crate::world::Container>| other.is_some_and(|other| other.id == container.id);
        let live = view.live().any(|live| live.id == container.id);
        if !live && !is(view.latest(&container.name)) && !is(view.before_latest(&container.name)) {
            plan.steps.push(Step::RemoveContainer { id: container.id.clone(), name: container.name.clone() });
        }
    }
    for old in observed.sandboxes.iter().filter(|old| old.id != sandbox.id && !old.ready) {
        let used = observed.containers.iter().any(|container| container.sandbox == old.id);
        if !used {
            let id = old.id.clone();
            plan.steps.push(if old.stopped { Step::RemoveSandbox { id } } else { Step::StopSandbox { id } });
        }
    }
}
