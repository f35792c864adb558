//! What pods take on the node's filesystems: writable layers, logs, volumes.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::PodUid;
use cri::v1;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};

use super::disk::{self, DiskUsage, Held};
use crate::node::facts::{self, Filesystem};
use crate::pods::registry::{Entry, Registry};
use crate::pods::stages::request::log_directory;

/// Where to look.
pub struct Storage {
    pub registry: Arc<Registry>,
    pub runtime: cri::Client,
    pub layout: volumes::Layout,
    /// `podLogsDir`
    pub logs_dir: PathBuf,
    pub disk: DiskUsage,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// The agent's folder, and its filesystem.
    pub root: Option<PathBuf>,
    pub nodefs: Option<Filesystem>,
    pub imagefs: Option<RuntimeFs>,
    pub containerfs: Option<RuntimeFs>,
    /// Writable layers by container id.
    pub layers: HashMap<String, Held>,
    pub pods: HashMap<PodUid, PodStorage>,
}

/// A filesystem of the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeFs {
    pub mountpoint: PathBuf,
    pub filesystem: Filesystem,
    /// What the runtime says to use there, in bytes.
    pub used: u64,
}

/// What one pod takes, without writable layers.
#[derive(Debug, Clone, Default)]
pub struct PodStorage {
    /// By container name.
    pub logs: HashMap<String, Held>,
    /// Logs of the pod itself, and its hosts file.
    pub own: Held,
    pub volumes: Vec<VolumeUse>,
}

/// One volume.
#[derive(Debug, Clone)]
pub struct VolumeUse {
    pub name: String,
    /// `persistentVolumeClaim.claimName`
    pub claim: Option<String>,
    /// Counts for the pod's ephemeral storage.
    pub ephemeral: bool,
    pub filesystem: Filesystem,
    pub held: Held,
}

/// A volume that was found on the disk.
struct Found {
    uid: PodUid,
    volume: Volume,
    path: PathBuf,
    filesystem: Filesystem,
}

impl Storage {
    /// Looks at all pods.
    pub async fn look(&self) -> Look {
        let entries = self.registry.entries();
        let layers = self.layers(None).await;
        self.look_at(entries, layers).await
    }

    /// Looks at some pods only.
    pub async fn of(&self, uids: &HashSet<PodUid>) -> Look {
        let entries: Vec<_> = self.registry.entries().into_iter().filter(|(uid, _)| uids.contains(uid)).collect();
        let mut layers = HashMap::new();
        for sandbox in entries.iter().filter_map(|(_, entry)| entry.sandbox.as_ref()) {
            layers.extend(self.layers(Some(sandbox.id.as_str())).await);
        }
        self.look_at(entries, layers).await
    }

    async fn look_at(&self, entries: Vec<(PodUid, Entry)>, layers: HashMap<String, Held>) -> Look {
        let runtime = self.runtime_filesystems().await;
        let (layout, logs) = (self.layout.clone(), self.logs_dir.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let pods = entries.iter().map(|(uid, entry)| (uid.clone(), files(uid, entry, &layout, &logs))).collect();
            let found = entries.iter().flat_map(|(uid, entry)| volumes_of(uid, entry, &layout)).collect();
            (facts::filesystem(layout.root()), pods, found)
        });
        // It fails only when the agent ends.
        let (nodefs, mut pods, found): (_, HashMap<PodUid, PodStorage>, Vec<Found>) = looking.await.unwrap_or_default();
        let (imagefs, containerfs) = runtime;
        for volume in self.measure(found).await {
            pods.entry(volume.0).or_default().volumes.push(volume.1);
        }
        Look { root: Some(self.layout.root().to_owned()), nodefs, imagefs, containerfs, layers, pods }
    }

    /// The writable layers of the containers of one sandbox, or of all.
    async fn layers(&self, sandbox: Option<&str>) -> HashMap<String, Held> {
        let filter = sandbox.map(|sandbox| v1::ContainerStatsFilter {
            pod_sandbox_id: sandbox.to_owned(),
            ..v1::ContainerStatsFilter::default()
        });
        match self.runtime.list_container_stats(v1::ListContainerStatsRequest { filter }).await {
            Ok(answer) => answer.stats.into_iter().filter_map(layer).collect(),
            Err(error) => {
                tracing::debug!(%error, "writable layers are not known");
                HashMap::new()
            }
        }
    }

    /// The filesystems of images and of writable layers; mostly one.
    pub async fn runtime_filesystems(&self) -> (Option<RuntimeFs>, Option<RuntimeFs>) {
        let Ok(answer) = self.runtime.image_fs_info(v1::ImageFsInfoRequest {}).await else { return (None, None) };
        let images = answer.image_filesystems.into_iter().next();
        let containers = answer.container_filesystems.into_iter().next();
        let images = images.and_then(runtime_fs);
        let containers = containers.and_then(runtime_fs).or_else(|| images.clone());
        (images, containers)
    }

    async fn measure(&self, found: Vec<Found>) -> Vec<(PodUid, VolumeUse)> {
        let counted = found.iter().filter(|found| !is_persistent(&found.volume)).map(|found| found.path.clone());
        let held = self.disk.of(counted.collect()).await;
        let measured = found.into_iter().filter_map(|found| {
            let held =
                if is_persistent(&found.volume) { whole(&found.filesystem) } else { held.get(&found.path).copied()? };
            let claim = found.volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
            let ephemeral = is_ephemeral(&found.volume);
            Some((
                found.uid,
                VolumeUse { name: found.volume.name, claim, ephemeral, filesystem: found.filesystem, held },
            ))
        });
        measured.collect()
    }
}

fn layer(stats: v1::ContainerStats) -> Option<(String, Held)> {
    let layer = stats.writable_layer?;
    let held = Held {
        bytes: layer.used_bytes?.value,
        inodes: layer.inodes_used.map_or(0, |inodes| inodes.value),
        at: Timestamp::from_nanosecond(i128::from(layer.timestamp)).ok()?,
    };
    Some((stats.attributes?.id, held))
}

fn runtime_fs(usage: v1::FilesystemUsage) -> Option<RuntimeFs> {
    let mountpoint = PathBuf::from(usage.fs_id?.mountpoint);
    let filesystem = facts::filesystem(&mountpoint).filter(|_| mountpoint.is_absolute())?;
    Some(RuntimeFs { mountpoint, filesystem, used: usage.used_bytes.map_or(0, |used| used.value) })
}

/// A volume whose filesystem is its own is as full as that.
fn whole(filesystem: &Filesystem) -> Held {
    let inodes = filesystem.inodes.saturating_sub(filesystem.inodes_free);
    Held { bytes: filesystem.used, inodes, at: Timestamp::now() }
}

fn is_persistent(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
}

/// Upstream's `IsLocalEphemeralVolume`.
#[must_use]
pub fn is_ephemeral(volume: &Volume) -> bool {
    let on_disk = |medium: Option<&str>| medium.unwrap_or_default() != "Memory";
    volume.git_repo.is_some()
        || volume.config_map.is_some()
        || volume.empty_dir.as_ref().is_some_and(|source| on_disk(source.medium.as_deref()))
}

/// Logs and the hosts file of a pod.
fn files(uid: &PodUid, entry: &Entry, layout: &volumes::Layout, logs_dir: &Path) -> PodStorage {
    let folder = log_directory(logs_dir, &entry.pod);
    let logs = names(&entry.pod).map(|name| (name.to_owned(), disk::files_in(&folder.join(name)))).collect();
    let mut own = disk::files_in(&folder);
    if let Ok(hosts) = disk::count(&layout.hosts_file(uid.as_str())) {
        own.bytes += hosts.bytes;
        own.inodes += hosts.inodes;
    }
    PodStorage { logs, own, volumes: Vec::new() }
}

fn names(pod: &Pod) -> impl Iterator<Item = &str> {
    let spec = pod.spec.as_ref();
    let containers = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    let ephemeral = spec.into_iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    containers.map(|container| container.name.as_str()).chain(ephemeral.map(|container| container.name.as_str()))
}

/// The volumes of a pod that have a folder in its own, under any plugin's name. That of a local volume is only a mark, unless a device is
/// mounted there: what there is of it lies elsewhere, and is a folder, or a device that has no figures.
fn volumes_of(uid: &PodUid, entry: &Entry, layout: &volumes::Layout) -> Vec<Found> {
    let plugins = std::fs::read_dir(layout.pod(uid.as_str()).join("volumes"));
    let plugins: Vec<PathBuf> = plugins.into_iter().flatten().flatten().map(|plugin| plugin.path()).collect();
    let volumes = entry.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let found = volumes.filter_map(|volume| {
        let path = plugins.iter().map(|plugin| plugin.join(&volume.name)).find(|path| path.is_dir())?;
        let is_mark = path == layout.volume(uid.as_str(), "local-volume", &volume.name);
        let path = match entry.elsewhere.get(&volume.name) {
            Some(elsewhere) if is_mark => elsewhere.clone(),
            None if is_mark && !volumes::on_other_device(&path).unwrap_or(false) => return None,
            _ => path,
        };
        if !path.is_dir() {
            return None;
        }
        let filesystem = facts::filesystem(&path)?;
        Some(Found { uid: uid.clone(), volume: volume.clone(), path, filesystem })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_volume_is_looked_at_where_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let (layout, uid) = (volumes::Layout::new(folder.path()), PodUid::new("u"));
        let disk = folder.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let claim = |name: &str| serde_json::json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
        let scratch = serde_json::json!({"name": "scratch", "emptyDir": {}});
        let spec =
            serde_json::json!({"containers": [], "volumes": [claim("data"), claim("device"), claim("unset"), scratch]});
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": spec})).unwrap();
        for name in ["data", "device", "unset"] {
            std::fs::create_dir_all(layout.volume("u", "local-volume", name)).unwrap();
        }
        let own = layout.volume("u", "empty-dir", "scratch");
        std::fs::create_dir_all(&own).unwrap();
        let registry = Registry::default();
        registry.update(&uid, &Arc::new(pod), |entry| {
            entry.elsewhere =
                [("data", disk.clone()), ("device", "/dev/null".into())].map(|(n, p)| (n.to_owned(), p)).into();
        });
        let found = volumes_of(&uid, &registry.entry(&uid).unwrap(), &layout);
        let found: Vec<_> = found.into_iter().map(|found| (found.volume.name, found.path)).collect();
        assert_eq!(found, [("data".to_owned(), disk), ("scratch".to_owned(), own)]);
    }
}
