//! Looks at the machine and at pods, for decisions.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::PodUid;

use super::UsedByPod;
use super::decide::{Observation, Observations};
use super::rank::{ContainerUse, Disk, Used};
use super::threshold::{Disks, Signal};
use crate::node::facts::{self, Filesystem};
use crate::pods::registry::Entry;
use crate::stats::disk::Held;
use crate::stats::storage::Look;
use crate::stats::{Detail, Provider, summary};

/// Where images lie changes only with the runtime's configuration.
const MOUNTS: Duration = Duration::from_secs(60);

/// Looks at the machine.
pub(super) struct Observer {
    stats: Arc<Provider>,
    root: PathBuf,
    /// Where images and writable layers lie, and when that was asked for.
    mounts: Option<(Instant, PathBuf, PathBuf)>,
}

impl Observer {
    pub(super) fn new(stats: Arc<Provider>, root: PathBuf) -> Self {
        Self { stats, root, mounts: None }
    }

    /// What there is of everything, and how the disks are laid out.
    pub(super) async fn look(&mut self) -> (Observations, Disks) {
        if self.mounts.as_ref().is_none_or(|(at, _, _)| at.elapsed() > MOUNTS)
            && let (Some(images), Some(containers)) = self.stats.storage().runtime_filesystems().await
        {
            self.mounts = Some((Instant::now(), images.mountpoint, containers.mountpoint));
        }
        let mounts = self.mounts.as_ref().map(|(_, images, containers)| (images.clone(), containers.clone()));
        let root = self.root.clone();
        let looked = tokio::task::spawn_blocking(move || disks(&root, mounts)).await;
        let (mut observations, disks) = looked.unwrap_or((Observations::new(), Disks::One));
        match self.stats.machine().await {
            Ok(machine) => {
                let memory = Observation { available: machine.memory_available, capacity: machine.memory };
                observations.insert(Signal::Memory, memory);
                let pods = machine.pods_memory;
                let pods = pods.map(|(available, capacity)| Observation { available, capacity });
                observations.extend(pods.map(|pods| (Signal::AllocatableMemory, pods)));
            }
            Err(error) => tracing::warn!(%error, "memory of the node cannot be observed"),
        }
        (observations, disks)
    }
}

fn disks(root: &Path, mounts: Option<(PathBuf, PathBuf)>) -> (Observations, Disks) {
    let mut observations = Observations::new();
    let mut add = |path: &Path, bytes: Signal, inodes: Signal| {
        let Some(filesystem) = facts::filesystem(path) else { return };
        let Filesystem { capacity, available, inodes: all, inodes_free, .. } = filesystem;
        observations.insert(bytes, Observation { available, capacity });
        // Some filesystems make inodes as they are needed, and have no number of them.
        if all > 0 {
            observations.insert(inodes, Observation { available: inodes_free, capacity: all });
        }
    };
    add(root, Signal::NodeFs, Signal::NodeFsInodes);
    let mut layout = Disks::One;
    if let Some((images, containers)) = mounts {
        add(&images, Signal::ImageFs, Signal::ImageFsInodes);
        add(&containers, Signal::ContainerFs, Signal::ContainerFsInodes);
        let device = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.dev());
        let (own, images, containers) = (device(root), device(&images), device(&containers));
        layout = match (images == own, containers == images) {
            (_, false) => Disks::Split,
            (false, true) => Disks::ImageFs,
            (true, true) => Disks::One,
        };
    }
    if let Some((now, max)) = facts::pids(Path::new("/")) {
        observations.insert(Signal::Pid, Observation { available: max.saturating_sub(now), capacity: max });
    }
    (observations, layout)
}

/// What pods use of what is short. One of which nothing could be read is missing.
pub(super) async fn used(stats: &Provider, signal: Signal, active: &[(PodUid, Entry)]) -> UsedByPod {
    let detail = if signal == Signal::Pid { Detail::Summary } else { Detail::Brief };
    let sample = match stats.sample(detail).await {
        Ok(sample) => sample,
        Err(error) => {
            tracing::warn!(%error, "use of pods cannot be read");
            return UsedByPod::new();
        }
    };
    let on_disk = match signal {
        Signal::Memory | Signal::AllocatableMemory | Signal::Pid => Look::default(),
        _ => {
            let uids: HashSet<PodUid> = active.iter().map(|(uid, _)| uid.clone()).collect();
            stats.storage().of(&uids).await
        }
    };
    let mut all = UsedByPod::new();
    for (uid, entry) in active {
        let Some(pod) = sample.pods.iter().find(|pod| pod.uid == *uid) else { continue };
        let mut used = on_disks(uid, entry, &on_disk);
        used.memory = pod.used.stats.memory.working_set;
        used.processes = summary::processes(pod);
        for container in &pod.containers {
            used.containers.entry(container.name.clone()).or_default().memory = container.used.stats.memory.working_set;
        }
        all.insert(uid.clone(), used);
    }
    all
}

/// What a pod takes on disks.
pub(super) fn on_disks(uid: &PodUid, entry: &Entry, look: &Look) -> Used {
    let disk = |held: &Held| Disk { bytes: held.bytes, inodes: held.inodes };
    let Some(storage) = look.pods.get(uid) else { return Used::default() };
    let mut containers: BTreeMap<String, ContainerUse> = BTreeMap::new();
    for (name, held) in &storage.logs {
        containers.entry(name.clone()).or_default().logs = disk(held);
    }
    for running in &entry.running {
        if let Some(held) = look.layers.get(running.id.as_str()) {
            containers.entry(running.name.clone()).or_default().rootfs = disk(held);
        }
    }
    let ids = entry.running.iter().map(|running| running.id.as_str());
    Used {
        containers,
        volumes: storage.volumes.iter().map(|volume| (volume.name.clone(), disk(&volume.held))).collect(),
        ephemeral: disk(&summary::ephemeral(ids, storage, &look.layers)),
        ..Used::default()
    }
}
