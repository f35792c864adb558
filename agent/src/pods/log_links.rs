//! Links by which collectors of logs find containers (pkg/kubelet/kuberuntime/legacy.go):
//! `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`, beside the folder of all pods' logs.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cri::v1::ContainerState;

use super::labels;

/// The longest name of a file.
const LONGEST: usize = 255;
const SUFFIX: &str = ".log";
/// How often dead links are looked for: as often as images are.
const PERIOD: Duration = Duration::from_secs(300);

/// The folder of the links, beside that of all pods' logs.
#[must_use]
pub fn folder(logs: &Path) -> PathBuf {
    logs.with_file_name("containers")
}

/// The link of a container; `log` is `ROOT/POD/CONTAINER/ATTEMPT.log`.
fn path(log: &Path, labels: &HashMap<String, String>, id: &str) -> Option<PathBuf> {
    let label = |key: &str| labels.get(key).map(String::as_str).unwrap_or_default();
    let (pod, namespace, container) =
        (label(labels::POD_NAME), label(labels::POD_NAMESPACE), label(labels::CONTAINER_NAME));
    let mut name = format!("{pod}_{namespace}_{container}-{id}");
    name.truncate(LONGEST - SUFFIX.len());
    Some(folder(log.ancestors().nth(3)?).join(name + SUFFIX))
}

/// Makes the link. What fails is told in the log, and no reason to do without the container.
pub async fn make(log: &Path, labels: &HashMap<String, String>, id: &str) {
    let Some(link) = path(log, labels, id) else { return };
    let made = async {
        if let Some(folder) = link.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        tokio::fs::symlink(log, &link).await
    };
    match made.await {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            tracing::warn!(%error, link = %link.display(), "link to a container's log not made");
        }
        _ => {}
    }
}

/// Removes the link of a container.
pub async fn remove(log: &Path, labels: &HashMap<String, String>, id: &str) {
    let Some(link) = path(log, labels, id) else { return };
    match tokio::fs::remove_file(&link).await {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(%error, link = %link.display(), "link to a container's log not removed");
        }
        _ => {}
    }
}

/// Removes dead links now and then: those of containers that went with their runtime, or with their pod while no agent ran.
pub async fn keep_swept(logs: &Path, runtime: &cri::Client) {
    loop {
        sweep(logs, runtime).await;
        tokio::time::sleep(PERIOD).await;
    }
}

/// A link without its log is dead when its container is, or is unknown: a log that is being rotated is away for a moment.
async fn sweep(logs: &Path, runtime: &cri::Client) {
    let root = logs.to_owned();
    let found = tokio::task::spawn_blocking(move || dangling(&root)).await;
    for (link, id) in found.unwrap_or_default() {
        let is_dead = match runtime.container(&id).await {
            Ok(answer) => answer.status.is_some_and(|status| status.state() == ContainerState::ContainerExited),
            Err(error) => error.is_not_found(),
        };
        if !is_dead {
            continue;
        }
        match tokio::fs::remove_file(&link).await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, link = %link.display(), "dead link to a container's log not removed");
            }
            _ => tracing::debug!(link = %link.display(), "dead link to a container's log removed"),
        }
    }
}

/// Links to logs below `logs` that are not there, with the ids of their containers. Others' links are theirs to remove. Blocks.
fn dangling(logs: &Path) -> Vec<(PathBuf, String)> {
    let Ok(entries) = std::fs::read_dir(folder(logs)) else { return Vec::new() };
    let links = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|link| {
        let is_ours = std::fs::read_link(link).is_ok_and(|log| log.starts_with(logs));
        is_ours && std::fs::metadata(link).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    });
    let with_id = links.filter_map(|link| {
        let name = link.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
        let (_, id) = name.rsplit_once('-')?;
        let id = id.to_owned();
        Some((link, id))
    });
    with_id.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[allow(clippy::large_futures)] // CRI's requests are large
    async fn links_of_dead_containers_are_removed() {
        use cri::v1;
        let (fake, folder) = (cri::fake::Fake::default(), tempfile::tempdir().unwrap());
        fake.add_image("i");
        let (logs, links) = (folder.path().join("pods"), folder.path().join("containers"));
        let runtime = fake.client();
        let pod = v1::RunPodSandboxRequest { config: Some(Default::default()), runtime_handler: String::new() };
        let pod_sandbox_id = runtime.run_pod_sandbox(pod).await.unwrap().pod_sandbox_id;
        let container = async || {
            let image = Some(v1::ImageSpec { image: "i".into(), ..Default::default() });
            let config = Some(v1::ContainerConfig { image, metadata: Some(Default::default()), ..Default::default() });
            let pod_sandbox_id = pod_sandbox_id.clone();
            let request = v1::CreateContainerRequest { pod_sandbox_id, config, sandbox_config: None };
            let id = runtime.create_container(request).await.unwrap().container_id;
            runtime.start_container(v1::StartContainerRequest { container_id: id.clone() }).await.unwrap();
            id
        };
        let (runs, dead) = (container().await, container().await);
        fake.exit(&dead, 0);
        std::fs::create_dir_all(&links).unwrap();
        std::fs::create_dir_all(&logs).unwrap();
        std::fs::write(logs.join("there"), "").unwrap();
        let link = |target: PathBuf, name: String| std::os::unix::fs::symlink(target, links.join(name)).unwrap();
        link(logs.join("gone"), format!("p_ns_runs-{runs}.log"));
        link(logs.join("gone"), format!("p_ns_dead-{dead}.log"));
        link(logs.join("gone"), "p_ns_unknown-1.log".to_owned());
        link(logs.join("there"), "p_ns_there-1.log".to_owned());
        link(folder.path().join("gone"), "p_ns_foreign-1.log".to_owned());
        sweep(&logs, &runtime).await;
        let mut left: Vec<_> =
            std::fs::read_dir(&links).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        let kept = ["p_ns_foreign-1.log".to_owned(), format!("p_ns_runs-{runs}.log"), "p_ns_there-1.log".to_owned()];
        assert_eq!(left, kept);
        // A runtime that is away says nothing of its containers.
        sweep(&logs, &cri::Client::new("unix:///nonexistent.sock").unwrap()).await;
        assert_eq!(std::fs::read_dir(&links).unwrap().count(), kept.len());
    }

    #[tokio::test]
    async fn a_container_is_found_by_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("pods/ns_p_u/c/0.log");
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        std::fs::write(&log, "said").unwrap();
        let labels = [(labels::POD_NAME, "p"), (labels::POD_NAMESPACE, "ns"), (labels::CONTAINER_NAME, "c")];
        let mut labels = HashMap::from(labels.map(|(key, value)| (key.to_owned(), value.to_owned())));
        for _ in 0..2 {
            make(&log, &labels, "id").await;
        }
        let link = folder.path().join("containers/p_ns_c-id.log");
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "said");
        for _ in 0..2 {
            remove(&log, &labels, "id").await;
        }
        assert!(!link.exists() && log.exists());
        labels.insert(labels::POD_NAME.to_owned(), "x".repeat(300));
        let name = path(&log, &labels, "id").unwrap();
        assert_eq!(name.file_name().unwrap().len(), LONGEST);
    }
}
