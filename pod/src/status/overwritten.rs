//! Whether somebody wrote over what the node says of a pod, which is then said again (`needsReconcile`, `isPodStatusByKubeletEqual`).

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::status::conditions;
use crate::status::containers::find;

/// Whether somebody else has changed what is the node's to say. Compared is what no API server words otherwise or drops, whatever its version:
/// what can never be the same would be written without end.
#[must_use]
pub fn overwritten(ours: &PodStatus, theirs: &PodStatus) -> bool {
    whole(ours) != whole(theirs) || conditions::overwritten(ours, theirs) || {
        let ours = [&ours.init_container_statuses, &ours.container_statuses, &ours.ephemeral_container_statuses];
        let theirs =
            [&theirs.init_container_statuses, &theirs.container_statuses, &theirs.ephemeral_container_statuses];
        ours.into_iter().zip(theirs).any(|(ours, theirs)| differ(ours.as_ref(), theirs.as_ref()))
    }
}

/// What is not set and what is empty are the same on the wire.
fn text(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

fn whole(status: &PodStatus) -> ([&str; 5], Option<&Time>, Vec<&str>) {
    let PodStatus { phase, reason, message, host_ip, pod_ip, .. } = status;
    let ips = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    ([phase, reason, message, host_ip, pod_ip].map(text), status.start_time.as_ref(), ips)
}

fn differ(ours: Option<&Vec<ContainerStatus>>, theirs: Option<&Vec<ContainerStatus>>) -> bool {
    let mut each = ours.into_iter().flatten();
    ours.map_or(0, Vec::len) != theirs.map_or(0, Vec::len)
        || each.any(|own| find(theirs, &own.name).is_none_or(|their| container(own) != container(their)))
}

type Run<'a> = (bool, i32, &'a str, State<'a>, State<'a>);

fn container(status: &ContainerStatus) -> Run<'_> {
    let [now, before] = [&status.state, &status.last_state].map(|state| self::state(state.as_ref()));
    (status.ready, status.restart_count, text(&status.container_id), now, before)
}

/// A word, reason and message, exit code, start and end.
type State<'a> = (&'static str, [&'a str; 2], i32, [Option<&'a Time>; 2]);

fn state(state: Option<&ContainerState>) -> State<'_> {
    if let Some(running) = state.and_then(|state| state.running.as_ref()) {
        return ("running", [""; 2], 0, [running.started_at.as_ref(), None]);
    }
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        let times = [ended.started_at.as_ref(), ended.finished_at.as_ref()];
        return ("terminated", [&ended.reason, &ended.message].map(text), ended.exit_code, times);
    }
    match state.and_then(|state| state.waiting.as_ref()) {
        Some(waiting) => ("waiting", [&waiting.reason, &waiting.message].map(text), 0, [None; 2]),
        None => ("", [""; 2], 0, [None; 2]),
    }
}
