//! Why a step is taken.

use super::facts::exit;
use super::{Reason, short, time};
use crate::plan::{KillContainer, StartContainer, Step, restart_all};
use crate::restart;
use crate::view::{Cause, View};
use crate::world::{Container, ContainerState};

pub(super) fn reason(view: &View<'_>, step: &Step) -> Reason {
    let because = because(view, step);
    Reason { step: words(step), because: format!("{because}{}", again(view, step)) }
}

fn words(step: &Step) -> String {
    match step {
        Step::Admit => "ask whether the node takes the pod".to_owned(),
        Step::Reject { .. } => "turn the pod away".to_owned(),
        Step::Allocate => "ask the node for other resources".to_owned(),
        Step::RecordAllocation => "write down what the pod was given".to_owned(),
        Step::Resize(_) => "resize what runs".to_owned(),
        Step::PrepareVolumes => "set up volumes".to_owned(),
        Step::CreateCgroup => "make the cgroup".to_owned(),
        Step::RunSandbox { attempt } => format!("run a sandbox (attempt {attempt})"),
        Step::StopSandbox { id } => format!("stop sandbox {}", short(id.as_str())),
        Step::RemoveSandbox { id } => format!("remove sandbox {}", short(id.as_str())),
        Step::StartContainer(start) if start.attempt == 0 => format!("start container {}", start.name),
        Step::StartContainer(start) => format!("restart container {} (attempt {})", start.name, start.attempt),
        Step::PreStop(hook) => {
            format!("run the preStop hook of container {} ({})", hook.name, short(hook.id.as_str()))
        }
        Step::KillContainer(kill) => {
            format!("kill container {} ({}, grace {} s)", kill.name, short(kill.id.as_str()), kill.grace)
        }
        Step::RemoveContainer { id, name } => format!("remove container {name} ({})", short(id.as_str())),
        Step::UnmountVolumes => "remove volumes".to_owned(),
        Step::RemoveCgroup => "remove the cgroup".to_owned(),
        Step::FinaliseDeletion => "delete the API object for good".to_owned(),
        Step::CreateMirror { .. } => "show the static pod at the API server".to_owned(),
        Step::DeleteMirror { .. } => "delete the mirror pod".to_owned(),
    }
}

fn because(view: &View<'_>, step: &Step) -> String {
    match step {
        Step::Admit => "the node was not asked yet".to_owned(),
        Step::Reject { reason, message } => format!("{reason}: {message}"),
        Step::Allocate => "the spec asks for other resources than the pod was given".to_owned(),
        Step::RecordAllocation => "a restart of the agent would forget it".to_owned(),
        Step::Resize(_) => "the pod was given other resources than are in force".to_owned(),
        Step::PrepareVolumes => "they are not set up".to_owned(),
        Step::CreateCgroup => "it is not there".to_owned(),
        Step::RunSandbox { .. } => sandbox(view),
        Step::StartContainer(start) => start_of(view, start),
        Step::KillContainer(kill) => kill_of(view, kill),
        Step::CreateMirror { .. } => "the API server has none".to_owned(),
        Step::DeleteMirror { .. } => "it is another one's, out of date, or no more wanted".to_owned(),
        Step::RemoveContainer { id, .. } => match view.world.observed.containers.iter().find(|known| known.id == *id) {
            Some(Container { state: ContainerState::Created, .. }) => {
                "it is left of a start that did not come to its end".to_owned()
            }
            _ if view.ending().is_none() && restart_all::is_due(view) => {
                "all containers start anew: one ended as its restart rules say".to_owned()
            }
            _ => ending(view),
        },
        Step::PreStop(_)
        | Step::StopSandbox { .. }
        | Step::RemoveSandbox { .. }
        | Step::UnmountVolumes
        | Step::RemoveCgroup
        | Step::FinaliseDeletion => ending(view),
    }
}

fn sandbox(view: &View<'_>) -> String {
    match view.sandbox {
        None => "there is none".to_owned(),
        Some(sandbox) => {
            let state = if sandbox.ready { "not the one that is wanted" } else { "not ready any more" };
            format!("sandbox {} (attempt {}) is {state}", short(sandbox.id.as_str()), sandbox.attempt)
        }
    }
}

/// Why the pod ends; said of steps that also make place for a new sandbox.
fn ending(view: &View<'_>) -> String {
    let Some(ending) = view.ending() else { return "another takes its place".to_owned() };
    match ending.cause {
        Cause::Deleted => "the pod was deleted".to_owned(),
        Cause::Gone => "the pod's object or manifest is gone".to_owned(),
        Cause::Evicted => match &view.world.eviction {
            Some(eviction) => format!("the node ends the pod: {}: {}", eviction.reason, eviction.message),
            None => "the node ends the pod".to_owned(),
        },
        Cause::DeadlineExceeded => {
            let at = view.deadline().map(|at| format!(" at {}", time(at))).unwrap_or_default();
            format!("activeDeadlineSeconds ended{at}")
        }
        Cause::Completed if view.ended_as().is_some() && !view.is_complete() => {
            "its status says that it has ended".to_owned()
        }
        Cause::Completed => "all containers ended, and none starts again".to_owned(),
        Cause::Rejected => "the node does not take the pod".to_owned(),
    }
}

fn start_of(view: &View<'_>, start: &StartContainer) -> String {
    let here = view.current(&start.name);
    let Some(last) = here.or_else(|| view.latest(&start.name)) else {
        return "it did not run yet".to_owned();
    };
    let id = short(last.id.as_str());
    if last.state == ContainerState::Created {
        return format!("the start of {id} did not come to its end");
    }
    let elsewhere = if here.is_none() { " in an older sandbox" } else { "" };
    let killed = view.world.observed.kills.get(&last.id);
    let killed = killed.map(|kill| format!(", killed by this agent at {}", time(kill.at))).unwrap_or_default();
    format!("{id}{elsewhere} {}{killed}; {}", exit(last), policy(view, last))
}

/// What lets a container that ended start again.
fn policy(view: &View<'_>, container: &Container) -> String {
    let Some(member) = view.members().find(|member| member.spec.name == container.name) else {
        return "it is in the spec".to_owned();
    };
    if view.is_replaced(&member, container) {
        return "its definition or its resources were changed".to_owned();
    }
    let policy = restart::policy(&view.spec, &member.spec);
    match view.restart(&member, container) {
        Some(restart) if restart.delay.is_zero() => format!("restartPolicy {policy}, without back-off"),
        Some(restart) => {
            format!("restartPolicy {policy}, back-off of {} s ends at {}", restart.delay.as_secs(), time(restart.at))
        }
        None => format!("restartPolicy {policy}"),
    }
}

fn kill_of(view: &View<'_>, kill: &KillContainer) -> String {
    match view.ending() {
        Some(_) => ending(view),
        None => kill.message.clone(),
    }
}

/// Of a step that failed before.
fn again(view: &View<'_>, step: &Step) -> String {
    match view.world.failures.get(&step.stage()) {
        Some(failure) => {
            let (count, reason) = (failure.count, &failure.reason);
            format!(
                "; try {} after it failed at {}: {reason}: {}",
                count.saturating_add(1),
                time(failure.at),
                failure.message
            )
        }
        None => String::new(),
    }
}
