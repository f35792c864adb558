//! What was started, resized and ended is counted.

use std::cmp::Ordering;

use api::quantity::Quantity;
use api::resources;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use pod::{Role, Step};

use crate::exposition::float;
use crate::metrics::families::{
    CONTAINERS_PER_POD, REQUESTED_RESIZES, RESIZE_MILLISECONDS, STARTED_CONTAINERS, STARTED_CONTAINERS_ERRORS,
    STARTED_PODS, STARTED_PODS_ERRORS, STARTED_USERNS, STARTED_USERNS_ERRORS, TERMINATED_CONTAINERS,
};
use crate::pods::stages::StageError;
use crate::pods::stages::sandbox::has_own_users;

/// A step that began then came to its end.
pub(super) fn done(pod: Option<&Pod>, step: &Step, begun: Timestamp, error: Option<&StageError>) {
    match step {
        Step::Resize(_) => {
            let took = Timestamp::now().duration_since(begun).as_millis_f64();
            RESIZE_MILLISECONDS.record([error.is_none().to_string().into()], took);
        }
        Step::RunSandbox { .. } => sandbox(pod, error),
        Step::StartContainer(start) => {
            let kind = kind(start.role);
            STARTED_CONTAINERS.count([kind.into()]);
            if let Some(error) = error {
                STARTED_CONTAINERS_ERRORS.count([kind.into(), error.reason.clone().into()]);
            }
        }
        _ => {}
    }
}

fn sandbox(pod: Option<&Pod>, error: Option<&StageError>) {
    STARTED_PODS.count([]);
    let has_users = pod.is_some_and(has_own_users);
    if has_users {
        STARTED_USERNS.count([]);
    }
    if error.is_some() {
        STARTED_PODS_ERRORS.count([]);
        if has_users {
            STARTED_USERNS_ERRORS.count([]);
        }
    }
}

/// A pod is seen for the first time.
pub(super) fn seen(pod: Option<&Pod>) {
    if let Some(spec) = pod.and_then(|pod| pod.spec.as_ref()) {
        CONTAINERS_PER_POD.record([], float(spec.containers.len() as u64));
    }
}

/// A pod asks for other resources than before.
pub(super) fn requested(before: &Pod, pod: &Pod) {
    for (resource, requirement, operation) in operations(before, pod) {
        REQUESTED_RESIZES.count([resource.into(), requirement.into(), operation.into()]);
    }
}

fn operations(before: &Pod, pod: &Pod) -> Vec<(&'static str, &'static str, &'static str)> {
    let (Some(before), Some(after)) = (&before.spec, &pod.spec) else { return Vec::new() };
    let mut operations = Vec::new();
    for new in after.init_containers.iter().flatten().chain(&after.containers) {
        let Some(old) = api::pod::container(before, &new.name) else { continue };
        for resource in ["memory", "cpu"] {
            let (is, was) = (amounts(new, resource), amounts(&old, resource));
            for (requirement, is, was) in [("requests", is.0, was.0), ("limits", is.1, was.1)] {
                operations.extend(operation(was, is).map(|operation| (resource, requirement, operation)));
            }
        }
    }
    operations
}

/// Request and limit.
fn amounts(container: &Container, resource: &str) -> (Quantity, Quantity) {
    let of = container.resources.as_ref();
    let read = |list| resources::read(list).get(resource).copied().unwrap_or_default();
    (read(of.and_then(|r| r.requests.as_ref())), read(of.and_then(|r| r.limits.as_ref())))
}

fn operation(was: Quantity, is: Quantity) -> Option<&'static str> {
    match is.cmp(&was) {
        Ordering::Equal => None,
        Ordering::Less if is.is_zero() => Some("remove"),
        Ordering::Less => Some("decrease"),
        Ordering::Greater if was.is_zero() => Some("add"),
        Ordering::Greater => Some("increase"),
    }
}

/// The status before becomes the one after.
pub(super) fn ended(before: Option<&PodStatus>, after: &PodStatus) {
    for (role, end) in ends(before, after) {
        let reason = end.reason.clone().unwrap_or_default();
        TERMINATED_CONTAINERS.count([kind(role).into(), end.exit_code.to_string().into(), reason.into()]);
    }
}

/// The ends of containers that the status before did not know. Of one that started again since, its last state tells.
fn ends<'a>(before: Option<&PodStatus>, after: &'a PodStatus) -> Vec<(Role, &'a ContainerStateTerminated)> {
    let mut ends = Vec::new();
    for role in [Role::Init, Role::App, Role::Ephemeral] {
        let known = before.map_or(&[][..], |before| of_role(before, role));
        for status in of_role(after, role) {
            let before = known.iter().find(|known| known.name == status.name).and_then(end);
            let is_known = |end: &ContainerStateTerminated| {
                before.is_some_and(|b| b.container_id == end.container_id && b.finished_at == end.finished_at)
            };
            let new = end(status).filter(|end| !is_known(end));
            ends.extend(new.map(|end| (role, end)));
        }
    }
    ends
}

fn of_role(status: &PodStatus, role: Role) -> &[ContainerStatus] {
    let list = match role {
        Role::Init | Role::Sidecar => &status.init_container_statuses,
        Role::App => &status.container_statuses,
        Role::Ephemeral => &status.ephemeral_container_statuses,
    };
    list.as_deref().unwrap_or_default()
}

fn end(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    [&status.state, &status.last_state].into_iter().flatten().find_map(|state| state.terminated.as_ref())
}

fn kind(role: Role) -> &'static str {
    match role {
        Role::Init | Role::Sidecar => "init_container",
        Role::App => "container",
        Role::Ephemeral => "ephemeral_container",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn status(containers: Value) -> PodStatus {
        serde_json::from_value(json!({ "containerStatuses": containers })).unwrap()
    }

    #[test]
    fn each_end_is_counted_once_also_of_what_started_again() {
        let container = |state: Value, last: Value| {
            json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": state, "lastState": last}])
        };
        let end = |id: &str, code: i32| json!({"terminated": {"exitCode": code, "containerID": id}});
        let running = json!({"running": {}});
        let first = status(container(running.clone(), json!({})));
        let ended = status(container(end("a", 1), json!({})));
        let again = status(container(running, end("a", 1)));
        let looping = status(container(json!({"waiting": {}}), end("b", 2)));
        let codes = |before: &PodStatus, after: &PodStatus| {
            ends(Some(before), after).into_iter().map(|(_, end)| end.exit_code).collect::<Vec<_>>()
        };
        assert_eq!(codes(&first, &ended), [1]);
        assert_eq!(codes(&ended, &again), Vec::<i32>::new());
        assert_eq!(codes(&first, &again), [1], "no status came in between");
        assert_eq!(codes(&again, &looping), [2]);
        assert_eq!(ends(None, &ended).len(), 1);
    }

    #[test]
    fn resizes_are_counted_by_what_they_do() {
        let pod = |requests: Value, limits: Value| -> Pod {
            let resources = json!({ "requests": requests, "limits": limits });
            serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})).unwrap()
        };
        let before = pod(json!({"cpu": "1", "memory": "1Gi"}), json!({"memory": "2Gi"}));
        assert_eq!(operations(&before, &before), []);
        assert_eq!(
            operations(&before, &pod(json!({"cpu": "500m", "memory": "2Gi"}), json!({"cpu": "1", "memory": "2Gi"}))),
            [("memory", "requests", "increase"), ("cpu", "requests", "decrease"), ("cpu", "limits", "add")]
        );
    }
}
