//! `status.containerStatuses` and their like.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, LinuxContainerUser, PodStatus, ResourceRequirements,
    VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::allocation::own_part;
use crate::backoff::image_backoff_shown;
use crate::plan::{Role, restart_all};
use crate::resolve::recursive_read_only;
use crate::status::conditions::ALL_RESTARTING;
use crate::status::seconds;
use crate::view::{Ending, Member, View, timestamp};
use crate::world::{Container, ContainerState, Verdict};

/// The status of a container in a list.
pub(super) fn find<'a>(statuses: Option<&'a Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    statuses.into_iter().flatten().find(|status| status.name == name)
}

/// Fills the three lists: init containers in the order of the spec, others by name.
pub(super) fn fill(view: &View<'_>, ending: Option<&Ending>, status: &mut PodStatus) {
    let (mut init, mut apps, mut ephemeral) = (Vec::new(), Vec::new(), Vec::new());
    for member in view.members() {
        let container = container_status(view, ending, &member);
        match member.role {
            Role::Init | Role::Sidecar => init.push(container),
            Role::App => apps.push(container),
            Role::Ephemeral => ephemeral.push(container),
        }
    }
    for list in [&mut apps, &mut ephemeral] {
        list.sort_by(|a: &ContainerStatus, b| a.name.cmp(&b.name));
    }
    let listed = |mut list: Vec<ContainerStatus>| {
        // It is kept for as long as the pod lives, and a vector that grows makes room for four.
        list.shrink_to_fit();
        (!list.is_empty()).then_some(list)
    };
    status.init_container_statuses = listed(init);
    status.container_statuses = listed(apps);
    status.ephemeral_container_statuses = listed(ephemeral);
}

fn container_status(view: &View<'_>, ending: Option<&Ending>, member: &Member<'_>) -> ContainerStatus {
    let spec = &*member.spec;
    // What was created but never started says nothing yet about the container.
    let container = view
        .latest(&spec.name)
        .filter(|container| container.state != ContainerState::Created && !view.is_outdated(container));
    let mut status = match container {
        Some(container) => observed(view, member, container),
        None => unobserved(view, member),
    };
    if let Some(container) = container {
        status.started = (member.role != Role::Ephemeral).then(|| view.is_started(member, container));
        status.ready = is_ready(view, member, container);
    } else if member.role != Role::Ephemeral {
        status.started = Some(false);
        let ended_well = status.state.as_ref().and_then(|state| state.terminated.as_ref());
        status.ready = member.role == Role::Init && ended_well.is_some_and(|ended| ended.exit_code == 0);
    }
    if ending.is_none() {
        explain_waiting(view, member, container, &mut status);
    }
    status
}

fn observed(view: &View<'_>, member: &Member<'_>, container: &Container) -> ContainerStatus {
    let spec = &*member.spec;
    let runtime = &view.world.node.runtime;
    let has = view.has(container).filter(|_| container.state == ContainerState::Running);
    let given = spec.resources.clone().unwrap_or_default();
    let resources = has.map_or_else(|| given.clone(), |has| own_part(has, &given));
    let image =
        if container.image.is_empty() { spec.image.clone().unwrap_or_default() } else { container.image.clone() };
    ContainerStatus {
        name: spec.name.clone(),
        image,
        image_id: container.image_id.clone(),
        container_id: Some(format!("{runtime}://{}", container.id)),
        restart_count: i32::try_from(container.attempt).unwrap_or(i32::MAX),
        state: Some(state(runtime, container)),
        last_state: Some(last_state(view, container)),
        allocated_resources: spec.resources.as_ref().and_then(|resources| resources.requests.clone()),
        resources: Some(ResourceRequirements { claims: None, ..resources }),
        user: container.user.as_ref().map(|user| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: user.uid,
                gid: user.gid,
                supplemental_groups: Some(user.supplemental_groups.clone()),
            }),
        }),
        volume_mounts: volume_mounts(view, spec),
        ..ContainerStatus::default()
    }
}

fn state(runtime: &str, container: &Container) -> ApiState {
    let started_at = (container.started_at != 0).then(|| seconds(timestamp(container.started_at)));
    match &container.state {
        ContainerState::Running => {
            ApiState { running: Some(ContainerStateRunning { started_at }), ..ApiState::default() }
        }
        ContainerState::Exited { exit_code, reason, message, finished_at } => ApiState {
            terminated: Some(ContainerStateTerminated {
                exit_code: *exit_code,
                reason: Some(terminated_reason(reason, *exit_code)),
                message: (!message.is_empty()).then(|| message.clone()),
                // A container that never ran has started and ended at the beginning of time.
                started_at: Some(started_at.unwrap_or(Time(Timestamp::UNIX_EPOCH))),
                finished_at: Some(seconds(timestamp(*finished_at))),
                container_id: Some(format!("{runtime}://{}", container.id)),
                signal: None,
            }),
            ..ApiState::default()
        },
        ContainerState::Created | ContainerState::Unknown => waiting("ContainerCreating", None),
    }
}

fn terminated_reason(reason: &str, exit_code: i32) -> String {
    match reason {
        "" if exit_code == 0 => "Completed".to_owned(),
        "" => "Error".to_owned(),
        reason => reason.to_owned(),
    }
}

fn last_state(view: &View<'_>, container: &Container) -> ApiState {
    let ended = |container: &&Container| matches!(container.state, ContainerState::Exited { .. });
    if let Some(before) = view.before_latest(&container.name).filter(ended) {
        return state(&view.world.node.runtime, before);
    }
    let known = view.previous(&container.name).and_then(|status| {
        let same_run = view.same_as_before(container).is_some();
        let own = status.state.as_ref().filter(|state| !same_run && state.terminated.is_some());
        own.or(status.last_state.as_ref()).filter(|state| state.terminated.is_some())
    });
    // A container that waits for its restart is its own last state; that is moved in `explain_waiting`.
    known.cloned().unwrap_or_default()
}

/// The status of a container that the runtime does not have.
fn unobserved(view: &View<'_>, member: &Member<'_>) -> ContainerStatus {
    let spec = &*member.spec;
    let before = view.previous(&spec.name);
    if let Some(removed) = before.filter(|_| restart_all::is_possible(view)).and_then(|before| restarting(view, before))
    {
        return removed;
    }
    let state = before.and_then(|before| before.state.clone()).unwrap_or_default();
    if let Some(ended) = before.filter(|_| state.terminated.is_some()) {
        return ended.clone();
    }
    let begun = || view.spec.containers.iter().any(|container| view.latest(&container.name).is_some());
    let state_now = if member.role == Role::Init && begun() {
        ended(0, "Completed", PASSED)
    } else {
        let has_init = view.spec.init_containers.as_ref().is_some_and(|list| !list.is_empty());
        waiting(if has_init { "PodInitializing" } else { "ContainerCreating" }, None)
    };
    let mut last_state = before.and_then(|before| before.last_state.clone()).unwrap_or_default();
    if state.running.is_some() {
        last_state = ended(KILLED, STATUS_UNKNOWN, LOST);
    }
    let known = before.filter(|before| before.container_id.is_some()).cloned();
    ContainerStatus {
        restart_count: before.map_or(0, |before| before.restart_count),
        state: Some(state_now),
        last_state: Some(last_state),
        ..known.unwrap_or_else(|| fresh(view, spec))
    }
}

const RESTARTING_ALL: &str = "RestartingAllContainers";
const REMOVED: &str = "The container is removed because RestartAllContainers in place";

/// The status of a container that ran and was removed to start anew with all others.
fn restarting(view: &View<'_>, before: &ContainerStatus) -> Option<ContainerStatus> {
    let told = view.world.previous.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is_counted = is_restarting_all(before);
    let is_removed = api::conditions::is_true(told, ALL_RESTARTING) && !is_waiting(before.state.as_ref());
    (is_counted || is_removed).then(|| ContainerStatus {
        restart_count: before.restart_count.saturating_add(i32::from(!is_counted)),
        state: Some(waiting(RESTARTING_ALL, Some(REMOVED.to_owned()))),
        last_state: Some(ended(KILLED, RESTARTING_ALL, REMOVED)),
        ..before.clone()
    })
}

/// Whether a status is of a container that was removed to start anew, and has not started since.
pub(crate) fn is_restarting_all(status: &ContainerStatus) -> bool {
    is_waiting(status.state.as_ref()) && ended_to_restart(status)
}

/// Whether the last end that a status tells of is that of such a container.
pub(super) fn ended_to_restart(status: &ContainerStatus) -> bool {
    let ended =
        [&status.state, &status.last_state].map(|state| state.as_ref().and_then(|state| state.terminated.as_ref()));
    ended.into_iter().flatten().next().is_some_and(|ended| ended.reason.as_deref() == Some(RESTARTING_ALL))
}

/// The status of a container of which nothing is known but its spec.
fn fresh(view: &View<'_>, spec: &Spec) -> ContainerStatus {
    ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        allocated_resources: spec.resources.as_ref().and_then(|resources| resources.requests.clone()),
        resources: Some(ResourceRequirements { claims: None, ..spec.resources.clone().unwrap_or_default() }),
        volume_mounts: volume_mounts(view, spec),
        ..ContainerStatus::default()
    }
}

/// The exit code and the reason of a container whose end nobody saw.
const KILLED: i32 = 137;
const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";
const LOST: &str = "The container could not be located when the pod was deleted.  The container used to be Running";
const LOST_AT_END: &str = "The container could not be located when the pod was terminated";
const PASSED: &str = "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally";

fn ended(exit_code: i32, reason: &str, message: &str) -> ApiState {
    let ended = ContainerStateTerminated {
        exit_code,
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..ContainerStateTerminated::default()
    };
    ApiState { terminated: Some(ended), ..ApiState::default() }
}

/// Once nothing of a pod can run any more, no container of it waits: those that could have run count as failed. Which
/// could: all init containers up to the last one that ever ran, and the others when the init containers are done.
pub(super) fn close(status: &mut PodStatus) {
    let ever_ran =
        |status: &ContainerStatus| !is_waiting(status.state.as_ref()) || has_ended(status.last_state.as_ref());
    let init = status.init_container_statuses.as_deref().unwrap_or_default();
    let apps = status.container_statuses.as_deref().unwrap_or_default();
    let last_done =
        init.last().is_none_or(|last| exited_well(last.state.as_ref()) || exited_well(last.last_state.as_ref()));
    let initialized = last_done || apps.iter().any(ever_ran);
    let reached = init.iter().rposition(ever_ran).map_or(1, |last| last + 1);
    let init = status.init_container_statuses.iter_mut().flatten().take(reached);
    let apps = status.container_statuses.iter_mut().flatten().filter(|_| initialized);
    for container in init.chain(apps).filter(|container| !has_ended(container.state.as_ref())) {
        container.state = Some(ended(KILLED, STATUS_UNKNOWN, LOST_AT_END));
    }
}

/// The most that all ended containers of a pod have to say together (`MaxPodTerminationMessageLogLength`), in bytes.
const MESSAGES_MAX: usize = 12 << 10;

/// Gives each container of the pod the same part of it (`normalizeStatus`).
pub(super) fn bound_messages(view: &View<'_>, status: &mut PodStatus) {
    let most = MESSAGES_MAX / view.members().count().max(1);
    let lists =
        [&mut status.init_container_statuses, &mut status.container_statuses, &mut status.ephemeral_container_statuses];
    for container in lists.into_iter().flatten().flatten() {
        let states = [&mut container.state, &mut container.last_state].into_iter().flatten();
        for message in states.filter_map(|state| state.terminated.as_mut()?.message.as_mut()) {
            message.truncate(message.floor_char_boundary(most));
        }
    }
}

fn is_waiting(state: Option<&ApiState>) -> bool {
    state.is_none_or(|state| state.running.is_none() && state.terminated.is_none())
}

fn has_ended(state: Option<&ApiState>) -> bool {
    state.is_some_and(|state| state.terminated.is_some())
}

fn exited_well(state: Option<&ApiState>) -> bool {
    state.and_then(|state| state.terminated.as_ref()).is_some_and(|ended| ended.exit_code == 0)
}

/// A container that is to start (again) but cannot yet waits, for a reason that is told; its end becomes its last state.
fn explain_waiting(view: &View<'_>, member: &Member<'_>, container: Option<&Container>, status: &mut ContainerStatus) {
    let restart = match container {
        // It does not wait for its own restart, but for the end of all others.
        Some(_) if restart_all::is_due(view) => return,
        Some(container) if matches!(container.state, ContainerState::Exited { .. }) => {
            let Some(restart) = view.restart(member, container) else { return };
            Some(restart)
        }
        Some(_) => return,
        None if status.state.as_ref().is_some_and(|state| state.terminated.is_some()) => return,
        None => None,
    };
    let name = &member.spec.name;
    let reason = match (view.start_failure(&member.spec), restart) {
        (Some(failure), _) => match image_backoff_shown(failure) {
            Some(shown) if shown <= view.world.now => {
                let image = member.spec.image.as_deref().unwrap_or_default();
                let message = format!("Back-off pulling image \"{image}\": {}: {}", failure.reason, failure.message);
                waiting("ImagePullBackOff", Some(message))
            }
            _ => waiting(&failure.reason, Some(failure.message.clone())),
        },
        (None, Some(restart)) if restart.at > view.world.now => {
            let pod = view.pod.map(api::pod::full_name).unwrap_or_default();
            let message = format!(
                "back-off {} restarting failed container={name} pod={pod}",
                go_duration(restart.delay.as_secs())
            );
            waiting("CrashLoopBackOff", Some(message))
        }
        // The API server takes an end under these restart policies for final: a moment's end on the way to the next start is not told.
        (None, Some(_)) if container.is_some_and(|c| view.is_replaced(member, c) || view.is_restarted(c)) => {
            let told =
                container.and_then(|container| view.same_as_before(container)).and_then(|was| was.state.as_ref());
            if let Some(running) = told.filter(|state| state.running.is_some()) {
                status.state = Some(running.clone());
            }
            return;
        }
        _ => return,
    };
    let ended = status.state.take().filter(|state| state.terminated.is_some());
    if ended.is_some() {
        status.last_state = ended;
    }
    status.state = Some(reason);
}

/// As Go prints a duration: `10s`, `2m40s`, `5m0s`.
fn go_duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn is_ready(view: &View<'_>, member: &Member<'_>, container: &Container) -> bool {
    match member.role {
        Role::Ephemeral => false,
        Role::Init => matches!(container.state, ContainerState::Exited { exit_code: 0, .. }),
        Role::Sidecar | Role::App => {
            let verdict = view.world.observed.probes.get(&container.id).and_then(|probes| probes.readiness);
            let by_probe = match verdict {
                _ if member.spec.readiness_probe.is_none() => true,
                Some(verdict) => verdict == Verdict::Success,
                None => view.same_as_before(container).is_some_and(|before| before.ready),
            };
            by_probe && view.is_started(member, container)
        }
    }
}

fn waiting(reason: &str, message: Option<String>) -> ApiState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ApiState { waiting: Some(waiting), ..ApiState::default() }
}

/// The mounts with their read-only state (KEP-3857). Those that cannot be as they should are `Disabled`.
fn volume_mounts(view: &View<'_>, spec: &Spec) -> Option<Vec<VolumeMountStatus>> {
    let handler = view.sandbox.map_or("", |sandbox| sandbox.handler.as_str());
    let supported = view.world.node.recursive_read_only.contains(handler);
    let mounts = spec.volume_mounts.iter().flatten().map(|mount| {
        let read_only = mount.read_only.unwrap_or(false);
        let recursive = recursive_read_only(mount, supported).unwrap_or(false);
        let mode = if recursive { "Enabled" } else { "Disabled" };
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| mode.to_owned()),
            ..VolumeMountStatus::default()
        }
    });
    let mounts: Vec<VolumeMountStatus> = mounts.collect();
    (!mounts.is_empty()).then_some(mounts)
}
