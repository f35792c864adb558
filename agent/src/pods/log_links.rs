//! Links by which collectors of logs find containers (pkg/kubelet/kuberuntime/legacy.go):
//! `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`, beside the folder of all pods' logs.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::labels;

/// The longest name of a file.
const LONGEST: usize = 255;
const SUFFIX: &str = ".log";

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

#[cfg(test)]
mod tests {
    use super::*;

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
