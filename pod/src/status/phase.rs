//! `status.phase`.

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

use crate::plan::{Role, restart_all};
use crate::restart::restarts;
use crate::status::containers::{ended_to_restart, find};
use crate::view::{Cause, Ending, Member, View};

/// The phase that follows from the statuses of the containers. No pod is called ended while a container of it runs, nor comes back once it is.
pub(super) fn phase(view: &View<'_>, ending: Option<&Ending>, status: &PodStatus, has_live: bool) -> &'static str {
    match view.ended_as().and_then(|ended| ended.phase.as_deref()) {
        Some("Succeeded") => return "Succeeded",
        Some(_) => return FAILED,
        None => {}
    }
    let cause = ending.map(|ending| ending.cause);
    if matches!(cause, Some(Cause::DeadlineExceeded | Cause::Rejected)) && !has_live {
        return FAILED;
    }
    let is_evicted = cause == Some(Cause::Evicted);
    // As in a kubelet, what a static pod's containers would do next counts all the same when the node ends it.
    let is_final = ending.is_some() && !has_live && (!is_evicted || view.world.source.is_api());
    let found = by_containers(view, is_final, status);
    match (found, has_live) {
        ("Succeeded" | FAILED, true) => "Running",
        // What ended well did so, although it was told to (`SyncTerminatingPod`); all else failed.
        (found, false) if is_evicted && found != "Succeeded" => FAILED,
        (found, _) => found,
    }
}

pub(super) const FAILED: &str = "Failed";

#[derive(Default)]
struct Count {
    waiting: u32,
    running: u32,
    ended_well: u32,
    failed: u32,
    restarting: u32,
}

fn by_containers(view: &View<'_>, is_ending: bool, status: &PodStatus) -> &'static str {
    let initialized = view.is_initialized();
    let (mut pending, mut pending_sidecars, mut failed) = (0_u32, 0_u32, 0_u32);
    for member in view.members().filter(|member| matches!(member.role, Role::Init | Role::Sidecar)) {
        let Some(status) = find(status.init_container_statuses.as_ref(), &member.spec.name) else { continue };
        match member.role {
            Role::Init if failed_for_good(view, &member, status) => failed += 1,
            Role::Init if exit_code(status).is_none() => pending += 1,
            Role::Sidecar if is_starting(status) => pending_sidecars += 1,
            _ => {}
        }
    }
    if failed > 0 {
        return "Failed";
    }
    let mut count = Count::default();
    for member in view.members().filter(|member| member.role == Role::App) {
        if let Some(status) = find(status.container_statuses.as_ref(), &member.spec.name) {
            add(view, &member, status, &mut count);
        }
    }
    let begun = count.running + count.ended_well + count.failed > 0;
    match count {
        // After the machine was started anew, too.
        _ if pending > 0 || (pending_sidecars > 0 && !initialized) => "Pending",
        Count { waiting, .. } if waiting > 0 => "Pending",
        Count { running, .. } if running > 0 => "Running",
        Count { failed: 1.., .. } if is_ending => "Failed",
        _ if is_ending && begun => "Succeeded",
        Count { restarting, .. } if restarting > 0 => "Running",
        Count { failed: 1.., .. } => "Failed",
        _ if begun => "Succeeded",
        _ => "Pending",
    }
}

fn add(view: &View<'_>, member: &Member<'_>, status: &ContainerStatus, count: &mut Count) {
    let state = status.state.as_ref();
    if state.is_some_and(|state| state.running.is_some()) {
        count.running += 1;
        return;
    }
    match exit_code(status) {
        None => count.waiting += 1,
        Some(code) => {
            if code == 0 {
                count.ended_well += 1
            } else {
                count.failed += 1
            }
            count.restarting += u32::from(starts_again(view, member, status, code));
        }
    }
}

fn failed_for_good(view: &View<'_>, member: &Member<'_>, status: &ContainerStatus) -> bool {
    exit_code(status).is_some_and(|code| code != 0 && !starts_again(view, member, status, code))
}

/// By its own restart policy, or with all others.
fn starts_again(view: &View<'_>, member: &Member<'_>, status: &ContainerStatus, code: i32) -> bool {
    let is_restarted = view.latest(&member.spec.name).is_some_and(|container| view.is_restarted(container));
    let by_policy = restarts(&view.spec, &member.spec, member.role, code);
    is_restarted || by_policy || ended_to_restart(status) || restart_all::is_due(view)
}

/// Of a sidecar: it never ended, and what comes after it waits for it.
fn is_starting(status: &ContainerStatus) -> bool {
    let runs = status.state.as_ref().is_some_and(|state| state.running.is_some());
    if runs { status.started != Some(true) } else { exit_code(status).is_none() }
}

/// Of the run that ended last; `None` when the container runs or never ended.
fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let state = status.state.as_ref();
    if state.is_some_and(|state| state.running.is_some()) {
        return None;
    }
    let ended = state.and_then(|state| state.terminated.as_ref());
    let before = || status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    ended.or_else(before).map(|ended| ended.exit_code)
}
