//! What a plan waits for.

use super::{short, stage, time};
use crate::backoff::{Restart, stage_retry, start_retry};
use crate::plan::{Plan, Role};
use crate::view::{Member, View};
use crate::world::{ContainerState, HookState, Stage, Verdict};

pub(super) fn waits(view: &View<'_>, plan: &Plan) -> Vec<String> {
    let mut waits = Vec::new();
    for (name, kill) in view.world.observed.containers.iter().filter_map(|container| {
        let kill = view.world.observed.kills.get(&container.id).filter(|kill| kill.running)?;
        Some((&container.name, kill))
    }) {
        let since = time(kill.at);
        waits.push(format!("container {name} is being killed since {since}, with {} s to end", kill.grace));
    }
    if view.ending().is_some() {
        if plan.steps.is_empty() && !plan.done && waits.is_empty() && !view.world.published {
            waits.push("the API server has not accepted the last status yet".to_owned());
        }
        return waits;
    }
    if !view.world.node.network_ready && !view.sandbox.is_some_and(|sandbox| sandbox.ready) {
        waits.push("the sandbox waits for the runtime's network".to_owned());
    }
    for (of, failure) in &view.world.failures {
        let at = match of {
            Stage::Container(_) => start_retry(failure),
            _ => stage_retry(failure),
        };
        if at > view.world.now {
            waits.push(format!("{} is tried again at {}: {}", stage(of), time(at), failure.reason));
        }
    }
    waits.extend(view.members().filter_map(|member| waits_of(view, &member)));
    waits
}

/// What one container waits for, or lets others wait for.
fn waits_of(view: &View<'_>, member: &Member<'_>) -> Option<String> {
    let name = &member.spec.name;
    let observed = &view.world.observed;
    if observed.starting.contains(name) {
        return Some(format!("container {name} is being started"));
    }
    let Some(container) = view.current(name) else {
        let first =
            view.members().find(|other| matches!(other.role, Role::Init | Role::Sidecar) && !is_passed(view, other))?;
        if first.spec.name == *name {
            return backed_off(view, name, view.latest(name).and_then(|old| view.after_end(old)));
        }
        let waits = member.role == Role::App && !view.is_initialized();
        return waits.then(|| format!("container {name} waits for init container {}", first.spec.name));
    };
    match &container.state {
        ContainerState::Exited { .. } => backed_off(view, name, view.restart(member, container)),
        ContainerState::Running => {
            let id = short(container.id.as_str());
            if matches!(observed.hooks.get(&container.id), Some(HookState::Running)) {
                return Some(format!("the postStart hook of container {name} ({id}) runs"));
            }
            let probes = observed.probes.get(&container.id).copied().unwrap_or_default();
            if member.spec.startup_probe.is_some() && !view.is_started(member, container) {
                return Some(format!("the startupProbe of container {name} ({id}) has not succeeded yet"));
            }
            let unready = member.spec.readiness_probe.is_some() && probes.readiness == Some(Verdict::Failure);
            unready.then(|| format!("the readinessProbe of container {name} ({id}) fails"))
        }
        ContainerState::Created | ContainerState::Unknown => None,
    }
}

fn backed_off(view: &View<'_>, name: &str, restart: Option<Restart>) -> Option<String> {
    let restart = restart.filter(|restart| restart.at > view.world.now)?;
    let (delay, at) = (restart.delay.as_secs(), time(restart.at));
    Some(format!("container {name} starts again at {at}, after a back-off of {delay} s"))
}

fn is_passed(view: &View<'_>, member: &Member<'_>) -> bool {
    match view.current(&member.spec.name) {
        Some(container) if member.role == Role::Sidecar => view.is_started(member, container),
        Some(container) => matches!(container.state, ContainerState::Exited { exit_code: 0, .. }),
        None => false,
    }
}
