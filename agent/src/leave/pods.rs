//! What pods have on this machine: sandboxes, volumes, cgroups, logs.

use std::fs;
use std::path::Path;

use cgroups::Tree;
use cri::v1::{ListPodSandboxRequest, RemovePodSandboxRequest, StopPodSandboxRequest};

use super::say;
use crate::client::watch::describe;
use crate::config::Config;
use crate::pods::{log_links, open_cgroups_of};
use crate::runtime_info::configured_driver;

/// Ends all pods and removes what they had; answers what could not be.
pub(super) async fn end(config: &Config) -> Vec<String> {
    let mut failures = sandboxes(&config.kubelet.container_runtime_endpoint).await;
    if !failures.is_empty() {
        // Their volumes and cgroups are in use.
        return failures;
    }
    let own = config.clone();
    let removed = tokio::task::spawn_blocking(move || {
        let mut failures = volumes(&own.layout.data_dir);
        failures.extend(cgroups(&own).err().map(|error| describe(&error)));
        failures.extend(logs(Path::new(&own.kubelet.pod_logs_dir)).err().map(|error| format!("pod logs: {error}")));
        failures
    });
    failures.extend(removed.await.unwrap_or_else(|error| vec![error.to_string()]));
    failures
}

/// Through the runtime, which has the plugins undo each pod's network.
async fn sandboxes(endpoint: &str) -> Vec<String> {
    let runtime = match cri::Client::new(endpoint) {
        Ok(runtime) => runtime,
        Err(error) => return vec![error.to_string()],
    };
    let listed = match runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await {
        Ok(answer) => answer.items,
        Err(error) => return vec![describe(&error)],
    };
    if !listed.is_empty() {
        say(&format!("ending {} sandboxes", listed.len()));
    }
    let mut failures = Vec::new();
    for sandbox in listed {
        let stop = StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
        let remove = RemovePodSandboxRequest { pod_sandbox_id: sandbox.id };
        if let Err(error) = runtime.stop_pod_sandbox(stop).await {
            failures.push(describe(&error));
        } else if let Err(error) = runtime.remove_pod_sandbox(remove).await {
            failures.push(describe(&error));
        }
    }
    failures
}

fn volumes(data_dir: &Path) -> Vec<String> {
    let layout = ::volumes::Layout::new(data_dir);
    let found = match ::volumes::teardown::existing(&layout) {
        Ok(found) => found,
        Err(error) => return vec![describe(&error)],
    };
    found.iter().filter_map(|uid| Some(describe(&::volumes::teardown::tear_down(&layout, uid).err()?))).collect()
}

/// The tree of all pods.
fn cgroups(config: &Config) -> Result<(), cgroups::Error> {
    let driver = open_cgroups_of(configured_driver(&config.kubelet))?;
    driver.destroy(&Tree::new(&config.kubelet.cgroup_root).pods())
}

/// Folders named `<namespace>_<name>_<uid>`, and the links to logs in them.
fn logs(dir: &Path) -> std::io::Result<()> {
    let links = log_links::folder(dir);
    for link in fs::read_dir(&links).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if fs::read_link(&link).is_ok_and(|target| target.starts_with(dir)) {
            fs::remove_file(&link)?;
        }
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().matches('_').count() == 2 {
            fs::remove_dir_all(entry.path())?;
        }
    }
    // They stay where something else is in them.
    for folder in [&links, dir] {
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}
