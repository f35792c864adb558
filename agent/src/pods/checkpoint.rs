//! Pods as they were known last, each in its folder: an agent that is started while the API server is away goes on with
//! them (docs/adr/0013-checkpoints.md). What they are made of beside their objects stays where it is: volumes in their
//! folders, images and containers in the runtime. ConfigMaps, Secrets and tokens are never written here.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use volumes::Layout;

/// The format. A checkpoint of another one is not read, as if there was none.
const VERSION: u32 = 1;

/// A file with the version of its format.
#[derive(Serialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

/// Read first and alone: what is `flatten`ed is buffered as a whole before it is read.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Content {
    pod: Pod,
}

/// What decides whether a pod is written again: all but the status, of which only the phase matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    pod: Arc<Pod>,
    phase: Option<String>,
}

impl Written {
    #[must_use]
    pub fn new(pod: &Arc<Pod>, status: Option<&PodStatus>) -> Self {
        Self { pod: Arc::clone(pod), phase: status.and_then(|status| status.phase.clone()) }
    }

    /// Whether a checkpoint of this says all that one of `now` would.
    #[must_use]
    pub fn is_current(&self, now: &Self) -> bool {
        let (old, new) = (&self.pod, &now.pod);
        let same = || {
            let (old, new) = (&old.metadata, &new.metadata);
            (&old.labels, &old.annotations, &old.deletion_timestamp, old.deletion_grace_period_seconds)
                == (&new.labels, &new.annotations, &new.deletion_timestamp, new.deletion_grace_period_seconds)
        };
        self.phase == now.phase && (Arc::ptr_eq(old, new) || (old.spec == new.spec && same()))
    }
}

/// Writes a pod with its status, into its folder, which a pod without volumes does not have yet. Blocks.
///
/// # Errors
/// What the filesystem said.
pub fn write(layout: &Layout, uid: &str, pod: &Pod, status: Option<&PodStatus>) -> io::Result<()> {
    let status = status.cloned().or_else(|| pod.status.clone());
    fs::create_dir_all(layout.pod(uid))?;
    write_versioned(&path(layout, uid), Content { pod: Pod { status, ..pod.clone() } })
}

/// All pods that were written. What is not understood is told in the log. Blocks.
#[must_use]
pub fn read_all(layout: &Layout) -> Vec<Arc<Pod>> {
    let uids = volumes::teardown::existing(layout).unwrap_or_else(|error| {
        tracing::warn!(%error, "folders of pods cannot be read");
        Vec::new()
    });
    let pods = uids.iter().filter_map(|uid| {
        let Content { pod } = read_versioned(&path(layout, uid))?;
        (pod.metadata.uid.as_deref() == Some(uid)).then(|| Arc::new(pod))
    });
    pods.collect()
}

fn path(layout: &Layout, uid: &str) -> PathBuf {
    layout.pod(uid).join("pod.json")
}

/// Writes a file so that readers see the old content or the new. A power cut may leave neither, which is as well: there
/// is nothing then to go on with.
///
/// # Errors
/// What the filesystem said.
pub fn write_versioned<T: Serialize>(path: &Path, content: T) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let bytes = serde_json::to_vec(&Versioned { version: VERSION, content })?;
    let mut options = fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.write(true).create(true).truncate(true).open(&temporary)?;
    io::Write::write_all(&mut file, &bytes)?;
    fs::rename(&temporary, path)
}

/// Reads it again; `None` where there is none that is understood.
#[must_use]
pub fn read_versioned<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "checkpoint cannot be read");
            return None;
        }
    };
    let content = serde_json::from_str(&text).and_then(|Version { version }| match version {
        VERSION => serde_json::from_str(&text).map(Some),
        version => {
            tracing::warn!(path = %path.display(), version, "checkpoint of another version");
            Ok(None)
        }
    });
    content.unwrap_or_else(|error| {
        tracing::warn!(%error, path = %path.display(), "checkpoint is not understood");
        None
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": uid}, "spec": {"containers": []}})).unwrap()
    }

    #[test]
    fn pods_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        assert!(read_all(&layout).is_empty());
        let status = PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() };
        write(&layout, "a", &pod("a"), Some(&status)).unwrap();
        write(&layout, "b", &pod("another"), None).unwrap();
        for uid in ["c", "d"] {
            fs::create_dir_all(layout.pod(uid)).unwrap();
        }
        fs::write(path(&layout, "c"), "{").unwrap();
        fs::write(path(&layout, "d"), json!({"version": 2, "pod": pod("d")}).to_string()).unwrap();
        let found = read_all(&layout);
        assert_eq!(found.iter().map(|pod| pod.status.clone()).collect::<Vec<_>>(), [Some(status)]);
    }

    #[test]
    fn only_what_matters_is_written_again() {
        let running = PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() };
        let before = Written::new(&Arc::new(pod("a")), Some(&running));
        let mut next = pod("a");
        next.metadata.resource_version = Some("2".to_owned());
        next.status = Some(running.clone());
        assert!(before.is_current(&Written::new(&Arc::new(next.clone()), Some(&running))));
        let ended = PodStatus { phase: Some("Failed".to_owned()), ..PodStatus::default() };
        assert!(!before.is_current(&Written::new(&Arc::new(next.clone()), Some(&ended))));
        next.metadata.deletion_grace_period_seconds = Some(1);
        assert!(!before.is_current(&Written::new(&Arc::new(next), Some(&running))));
    }
}
