//! What pods have left behind on this machine outside the runtime.

use std::collections::HashSet;

use api::PodUid;

use cri::v1;

use super::Context;
use super::labels::{CONTAINER_NAME, POD_UID};
use super::stages::container::remove_container;
use crate::client::watch::describe;

/// Pods with a folder or a cgroup. Blocks.
#[must_use]
pub fn leftovers(context: &Context) -> HashSet<PodUid> {
    let mut found = HashSet::new();
    match volumes::teardown::existing(&context.layout) {
        Ok(uids) => found.extend(uids.iter().map(PodUid::new)),
        Err(error) => tracing::warn!(error = %describe(&error), "folders of pods cannot be read"),
    }
    match cgroups::driver::pods(context.cgroups.as_ref(), &context.tree) {
        Ok(pods) => found.extend(pods.iter().map(|(_, uid)| PodUid::new(uid))),
        Err(error) => tracing::warn!(error = %describe(&error), "cgroups of pods cannot be read"),
    }
    found
}

/// Removes the dead containers of pods that have ended: only their logs were still of use. For a node that is short of
/// disk; pods that go on keep what they need for their statuses.
pub async fn remove_dead(context: &Context) {
    let exited = v1::ContainerStateValue { state: v1::ContainerState::ContainerExited as i32 };
    let filter = v1::ContainerFilter { state: Some(exited), ..v1::ContainerFilter::default() };
    let request = v1::ListContainersRequest { filter: Some(filter) };
    let dead = match context.runtime.list_containers(request).await {
        Ok(answer) => answer.containers,
        Err(error) => {
            tracing::warn!(%error, "dead containers cannot be listed");
            return;
        }
    };
    for container in dead {
        let label = |key: &str| container.labels.get(key).map(String::as_str).unwrap_or_default();
        let entry = context.registry.entry(&PodUid::new(label(POD_UID)));
        let status = entry.as_ref().and_then(|entry| entry.status.as_deref());
        if !status.is_some_and(|status| api::pod::is_terminal_phase(status.phase.as_deref())) {
            continue;
        }
        if let Err(error) = remove_container(&context.runtime, &container.id, label(CONTAINER_NAME)).await {
            tracing::warn!(%error, container = %container.id, "dead container cannot be removed");
        }
    }
}
