//! Which containers to start and which to kill in a sandbox that is ready.

use api::SandboxId;

use crate::backoff::{Restart, start_retry};
use crate::plan::{Event, KillContainer, Plan, Role, StartContainer, Step};
use crate::restart;
use crate::view::{Member, View};
use crate::world::{Container, ContainerState, HookState, Sandbox, Stage, Verdict};

/// Why a container is killed while its pod goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KillCause {
    /// Its sandbox is gone.
    SandboxDied,
    /// Its image was changed in the spec.
    Changed,
    /// It was given other resources, and its policy is to restart for that.
    Resized,
    /// livenessProbe.
    Liveness,
    /// startupProbe.
    Startup,
    /// The postStart hook failed.
    PostStart,
    /// The runtime lost track of it.
    Unknown,
}

pub(super) fn plan(view: &View<'_>, sandbox: &Sandbox, plan: &mut Plan) {
    for member in view.members().filter(|member| member.role == Role::Ephemeral) {
        advance(view, &member, sandbox, plan);
    }
    if !init(view, sandbox, plan) {
        return;
    }
    let mut held = false;
    for member in view.members().filter(|member| member.role == Role::App) {
        if !held || view.current(&member.spec.name).is_some() {
            advance(view, &member, sandbox, plan);
        }
        held |= holds_up(view, &member);
    }
}

/// Whether the containers that come after this one wait: its postStart hook comes before their first start, as a kubelet starts one
/// after the other. One that does not start holds nobody up.
fn holds_up(view: &View<'_>, member: &Member<'_>) -> bool {
    let hook = member.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    if hook.is_none() || view.start_failure(&member.spec).is_some() {
        return false;
    }
    match view.current(&member.spec.name) {
        None | Some(Container { state: ContainerState::Created, .. }) => true,
        Some(container) => matches!(view.world.observed.hooks.get(&container.id), Some(HookState::Running)),
    }
}

/// Init containers and sidecars, one after the other. Whether the app containers may run.
fn init(view: &View<'_>, sandbox: &Sandbox, plan: &mut Plan) -> bool {
    let (initialized, completing) = (view.is_initialized(), is_completing(view));
    let members: Vec<Member<'_>> =
        view.members().filter(|member| matches!(member.role, Role::Init | Role::Sidecar)).collect();
    let furthest = members.iter().rposition(|member| view.current(&member.spec.name).is_some()).unwrap_or(0);
    for (index, member) in members.iter().enumerate() {
        let container = view.current(&member.spec.name);
        if member.role == Role::Sidecar {
            if !completing {
                advance(view, member, sandbox, plan);
            }
            // A sidecar that was passed once holds nobody up when it restarts.
            let passed = initialized || index < furthest;
            if !passed && !container.is_some_and(|container| view.is_started(member, container)) {
                return false;
            }
        } else if !initialized && index >= furthest {
            advance(view, member, sandbox, plan);
            if !container
                .is_some_and(|container| matches!(container.state, ContainerState::Exited { exit_code: 0, .. }))
            {
                return false;
            }
        }
    }
    true
}

/// Whether the last app containers are being killed and none starts again: then a kubelet waits for that, and until it ends the pod lets
/// its sidecars be as they are.
fn is_completing(view: &View<'_>) -> bool {
    let is_ending = |member: Member<'_>| match view.current(&member.spec.name) {
        Some(container) if matches!(container.state, ContainerState::Exited { .. }) => {
            view.restart(&member, container).is_none()
        }
        Some(container) => {
            let is_killed = view.world.observed.kills.get(&container.id).is_some_and(|kill| kill.running);
            let has_rules = member.spec.restart_policy_rules.as_ref().is_some_and(|rules| !rules.is_empty());
            is_killed && !has_rules && restart::policy(&view.spec, &member.spec) == "Never"
        }
        None => false,
    };
    view.members().filter(|member| member.role == Role::App).all(is_ending)
}

/// The next step of one container, if any.
fn advance(view: &View<'_>, member: &Member<'_>, sandbox: &Sandbox, plan: &mut Plan) {
    let name = &member.spec.name;
    if view.world.observed.starting.contains(name) {
        return;
    }
    let Some(container) = view.current(name) else {
        if member.role == Role::Ephemeral && view.latest(name).is_some() {
            return;
        }
        start_first(view, member, &sandbox.id, plan);
        return;
    };
    match &container.state {
        // Left behind by a start that did not come to its end. The next one takes its attempt, and so its place.
        ContainerState::Created => {
            plan.steps.push(Step::RemoveContainer { id: container.id.clone(), name: name.clone() });
        }
        ContainerState::Unknown => kill(view, container, KillCause::Unknown, plan),
        ContainerState::Running => {
            if let Some(cause) = kill_cause(view, member, container) {
                kill(view, container, cause, plan);
            }
        }
        ContainerState::Exited { .. } => start_again(view, member, container, &sandbox.id, plan),
    }
}

/// The first start in this sandbox. What ran in an older one starts again only by its restart policy; init containers do in any case, but
/// wait as long as they would have there.
fn start_first(view: &View<'_>, member: &Member<'_>, sandbox: &SandboxId, plan: &mut Plan) {
    match view.latest(&member.spec.name) {
        Some(old) if matches!(member.role, Role::App | Role::Sidecar) => start_again(view, member, old, sandbox, plan),
        old => match old.and_then(|old| view.after_end(old)) {
            Some(restart) => start_at(view, member, sandbox, restart, plan),
            None => start(view, member, sandbox, old.map_or(0, |old| old.backoff), plan),
        },
    }
}

fn start_again(view: &View<'_>, member: &Member<'_>, container: &Container, sandbox: &SandboxId, plan: &mut Plan) {
    if container.state == ContainerState::Created {
        return start(view, member, sandbox, container.backoff, plan);
    }
    if let Some(restart) = view.restart(member, container) {
        start_at(view, member, sandbox, restart, plan);
    }
}

fn start_at(view: &View<'_>, member: &Member<'_>, sandbox: &SandboxId, restart: Restart, plan: &mut Plan) {
    if restart.at <= view.world.now {
        start(view, member, sandbox, restart.level, plan);
        return;
    }
    plan.wake(restart.at);
    if let Some(pod) = view.pod {
        plan.events.push(Event::back_off(pod, member.role, &member.spec.name));
    }
}

fn start(view: &View<'_>, member: &Member<'_>, sandbox: &SandboxId, backoff: u32, plan: &mut Plan) {
    let name = &member.spec.name;
    if super::resize::holds_starts(view) {
        return;
    }
    if let Some(failure) = view.start_failure(&member.spec) {
        let at = start_retry(failure);
        if at > view.world.now {
            plan.wake(at);
            if let Some(shown) = crate::backoff::image_backoff_shown(failure) {
                if shown > view.world.now {
                    plan.wake(shown);
                } else {
                    plan.events.extend(Event::image_back_off(member));
                }
            }
            return;
        }
    }
    plan.steps.push(Step::StartContainer(StartContainer {
        name: name.clone(),
        role: member.role,
        sandbox: sandbox.clone(),
        attempt: next_attempt(view, name),
        backoff,
        spec_hash: crate::hash::container(&member.spec),
    }));
}

/// One more than the newest container that the runtime has. When it has none, the status knows.
fn next_attempt(view: &View<'_>, name: &str) -> u32 {
    let from_status = view.previous(name).map_or(0, |status| {
        let count = u32::try_from(status.restart_count).unwrap_or(0);
        let ran = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| {
            state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        };
        // That the next one will be another is told already.
        let is_counted = crate::status::is_restarting_all(status);
        if is_counted {
            return count;
        }
        if ran(status.state.as_ref()) || ran(status.last_state.as_ref()) { count.saturating_add(1) } else { count }
    });
    match view.latest(name) {
        Some(container) if container.state == ContainerState::Created => container.attempt,
        Some(container) => container.attempt.saturating_add(1),
        None => from_status,
    }
}

fn kill_cause(view: &View<'_>, member: &Member<'_>, container: &Container) -> Option<KillCause> {
    if member.role == Role::Ephemeral {
        return None;
    }
    let observed = &view.world.observed;
    let hash = crate::hash::container(&member.spec);
    // An init container that runs goes on with the image that it has.
    if member.role != Role::Init && container.spec_hash.as_ref().is_some_and(|old| *old != hash) {
        return Some(KillCause::Changed);
    }
    if view.must_restart(member, container) {
        return Some(KillCause::Resized);
    }
    if matches!(observed.hooks.get(&container.id), Some(HookState::Failed { .. })) {
        return Some(KillCause::PostStart);
    }
    let probes = observed.probes.get(&container.id)?;
    if probes.startup == Some(Verdict::Failure) && member.spec.startup_probe.is_some() {
        return Some(KillCause::Startup);
    }
    (probes.liveness == Some(Verdict::Failure) && member.spec.liveness_probe.is_some()).then_some(KillCause::Liveness)
}

/// Kills one container of a pod that goes on; once, and again only when that failed.
pub(super) fn kill(view: &View<'_>, container: &Container, cause: KillCause, plan: &mut Plan) {
    let name = &container.name;
    if view.world.observed.kills.get(&container.id).is_some_and(|kill| kill.running) {
        return;
    }
    if !super::run::may_try(view, &Stage::Kill(name.clone()), plan) {
        return;
    }
    let member = view.members().find(|member| member.spec.name == *name);
    let spec = member.as_ref().map(|member| &*member.spec);
    let probe = match cause {
        KillCause::Liveness => spec.and_then(|spec| spec.liveness_probe.as_ref()),
        KillCause::Startup => spec.and_then(|spec| spec.startup_probe.as_ref()),
        _ => None,
    };
    let grace = probe.and_then(|probe| probe.termination_grace_period_seconds).unwrap_or_else(|| view.grace());
    let (reason, message) = describe(view, member.as_ref(), cause, name);
    plan.steps.push(Step::KillContainer(KillContainer {
        id: container.id.clone(),
        name: name.clone(),
        grace: grace.max(1),
        pre_stop: container.state == ContainerState::Running,
        restarts: matches!(cause, KillCause::Liveness | KillCause::Startup)
            && spec.is_some_and(|spec| restart::policy(&view.spec, spec) != "Never"),
        reason: reason.to_owned(),
        message,
    }));
}

/// The reason of a kill and the text of its event. A container-level rule has no say in the text: no exit code is known.
fn describe(view: &View<'_>, member: Option<&Member<'_>>, cause: KillCause, name: &str) -> (&'static str, String) {
    let is_app = member.is_some_and(|member| member.role == Role::App);
    let subject = if is_app { "Container" } else { "Init container" };
    let restarts = member.is_some_and(|member| restart::policy(&view.spec, &member.spec) != "Never");
    let then = |certain: bool| if is_app && (certain || restarts) { ", will be restarted" } else { "" };
    match cause {
        KillCause::SandboxDied => ("Killing", format!("Stopping container {name}")),
        KillCause::Changed => ("Killing", format!("{subject} {name} definition changed{}", then(true))),
        KillCause::Resized => ("Killing", format!("Container {name} resize requires restart")),
        KillCause::Liveness => ("Unhealthy", format!("{subject} {name} failed liveness probe{}", then(false))),
        KillCause::Startup => ("Unhealthy", format!("{subject} {name} failed startup probe{}", then(false))),
        KillCause::PostStart => ("FailedPostStartHook", "FailedPostStartHook".to_owned()),
        KillCause::Unknown => {
            ("ContainerUnknown", format!("{subject} is in \"unknown\" state, try killing it before restart"))
        }
    }
}
