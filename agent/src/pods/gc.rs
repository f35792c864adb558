//! What pods have left behind on this machine outside the runtime.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use api::PodUid;

use cri::v1;

use super::Context;
use super::labels::{CONTAINER_NAME, POD_UID};
use super::stages::container::remove_container;
use crate::client::watch::describe;

/// Pods with a folder, a cgroup or logs. Blocks.
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
    match log_folders(&context.config.logs_dir) {
        Ok(folders) => found.extend(folders.into_iter().map(|(uid, _)| uid)),
        Err(error) => tracing::warn!(%error, "folders of logs cannot be read"),
    }
    found
}

/// The pods that have logs: the folder of each is `NAMESPACE_NAME_UID`.
fn log_folders(logs: &Path) -> io::Result<Vec<(PodUid, PathBuf)>> {
    let entries = match std::fs::read_dir(logs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let parts: Vec<&str> = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().split('_').collect();
        if let [_, _, uid] = parts.as_slice() {
            found.push((PodUid::new(uid), path.clone()));
        }
    }
    Ok(found)
}

/// Removes the logs of a pod of which nothing else is left, whatever its name was. Blocks.
pub fn remove_logs(logs: &Path, uid: &PodUid) {
    let removed = log_folders(logs).and_then(|folders| {
        folders.iter().filter(|(owner, _)| owner == uid).try_for_each(|(_, folder)| std::fs::remove_dir_all(folder))
    });
    if let Err(error) = removed {
        tracing::warn!(%error, %uid, "logs of a pod that is gone stay");
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_go_by_the_uid() {
        let logs = tempfile::tempdir().unwrap();
        for name in ["ns_web_1", "ns_web_2", "other_db_1", "notes", "a_b_c_1"] {
            std::fs::create_dir_all(logs.path().join(name).join("c")).unwrap();
        }
        remove_logs(logs.path(), &PodUid::new("1"));
        let mut left: Vec<_> =
            std::fs::read_dir(logs.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["a_b_c_1", "notes", "ns_web_2"]);
        assert!(log_folders(&logs.path().join("missing")).unwrap().is_empty());
    }
}
