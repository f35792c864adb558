//! User namespaces of pods with `hostUsers: false` (KEP-127): each has a range of the node's user and group ids to itself, so that
//! root in one is nobody outside.
//!
//! Which range a pod has is in its folder, as a kubelet writes it: containers that run must find the same one after a restart of the
//! agent. It is given back with the folder. [`Ranges`] is pure.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cri::v1::{IdMapping, NamespaceMode, UserNamespace};
use serde::{Deserialize, Serialize};
use volumes::Layout;

use crate::config::write_atomic;

/// Ids that a pod gets, unless configured otherwise; ranges are made of multiples of it.
pub const UNIT: u32 = 65_536;
/// The user whose subordinate ids are the pods' (subuid(5)).
const OWNER: &str = "kubelet";
const FILE: &str = "userns";

/// Why a pod has no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The node has none to give.
    #[error("{0}")]
    NoRanges(String),
    /// All are taken.
    #[error("could not find an empty slot to allocate a user namespace")]
    Exhausted,
    /// What an earlier agent wrote cannot be used.
    #[error("{path}: {message}")]
    File { path: PathBuf, message: String },
}

/// The node's ids that are for pods, in ranges of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges {
    first: u32,
    /// How many ids a pod gets.
    size: u32,
    slots: u32,
    /// The slot of each pod.
    taken: BTreeMap<String, u32>,
}

impl Ranges {
    /// `count` ids from `first` on, for at least `pods` pods.
    ///
    /// # Errors
    /// What a kubelet says of ids that cannot be divided, include those of the node's own users, or are too few.
    pub fn new(first: u32, count: u64, size: u32, pods: u32) -> Result<Self, String> {
        if size == 0 || !first.is_multiple_of(size) {
            return Err(format!("kubelet user assigned ID {first} is not a multiple of {size}"));
        }
        if first < size {
            return Err(format!("kubelet user assigned ID {first} must be greater or equal to {size}"));
        }
        if !count.is_multiple_of(u64::from(size)) {
            return Err(format!("kubelet user assigned IDs length {count} is not a multiple of {size}"));
        }
        // Beyond 32 bits there are no ids.
        let count = count.min((1 << 32) - u64::from(first));
        let slots = u32::try_from(count / u64::from(size)).unwrap_or(0);
        if slots < pods {
            return Err(format!("kubelet user assigned IDs are not enough to support {pods} pods"));
        }
        Ok(Self { first, size, slots, taken: BTreeMap::new() })
    }

    /// The first id of a pod's range, if it has one.
    #[must_use]
    pub fn of(&self, pod: &str) -> Option<u32> {
        self.taken.get(pod).map(|slot| self.first + slot * self.size)
    }

    /// Gives a pod the lowest range that is free, or the one that it has.
    #[must_use]
    pub fn take(&mut self, pod: &str) -> Option<u32> {
        if let Some(first) = self.of(pod) {
            return Some(first);
        }
        let used: std::collections::BTreeSet<u32> = self.taken.values().copied().collect();
        let slot = (0..self.slots).find(|slot| !used.contains(slot))?;
        self.taken.insert(pod.to_owned(), slot);
        self.of(pod)
    }

    /// A pod has had this range all along.
    ///
    /// # Errors
    /// A range that is not one of the node's, or another pod's.
    pub fn record(&mut self, pod: &str, first: u32, size: u32) -> Result<(), String> {
        if size != self.size {
            return Err(format!("wrong user namespace length {size}"));
        }
        if !first.is_multiple_of(self.size) {
            return Err(format!("wrong user namespace offset specified {first}"));
        }
        let slot = first.checked_sub(self.first).map(|offset| offset / self.size).filter(|slot| *slot < self.slots);
        let slot = slot.ok_or_else(|| format!("id {first} is out of range"))?;
        match self.taken.iter().find(|(other, taken)| **taken == slot && *other != pod) {
            Some(_) => Err(format!("range picked for pod {pod:?} already taken")),
            None => {
                self.taken.insert(pod.to_owned(), slot);
                Ok(())
            }
        }
    }

    /// A pod is no more.
    pub fn release(&mut self, pod: &str) {
        self.taken.remove(pod);
    }
}

/// The content of a pod's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mappings {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

impl Mappings {
    fn one(first: u32, size: u32) -> Self {
        let mapping = vec![Mapping { host_id: first, container_id: 0, length: size }];
        Self { uid_mappings: mapping.clone(), gid_mappings: mapping }
    }

    /// The one range that both are, with root in it: neither a kubelet nor we write others.
    fn range(&self) -> Result<(u32, u32), &'static str> {
        match (self.uid_mappings.as_slice(), self.gid_mappings.as_slice()) {
            ([uids], [gids]) if uids == gids && uids.container_id == 0 => Ok((uids.host_id, uids.length)),
            ([uids], [gids]) if uids == gids => Err("UID 0 must be mapped"),
            ([_], _) => Err("GID and UID mapping should be identical"),
            _ => Err("no more than one mapping allowed"),
        }
    }
}

/// How the node's ids are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `userNamespaces.idsPerPod`
    pub ids_per_pod: u32,
    /// `maxPods`
    pub max_pods: u32,
}

/// Who has which ids.
#[derive(Debug)]
pub struct UserNamespaces {
    layout: Layout,
    /// Or why there are none.
    ranges: Mutex<Result<Ranges, String>>,
}

impl UserNamespaces {
    /// Reads whose the ids of this machine are, and which of them pods have. Blocks.
    #[must_use]
    pub fn open(layout: Layout, root: &Path, settings: Settings) -> Self {
        let ranges = subordinate(root, settings.ids_per_pod)
            .and_then(|(first, count)| Ranges::new(first, count, settings.ids_per_pod, settings.max_pods));
        if let Err(error) = &ranges {
            tracing::warn!(%error, "pods cannot have user namespaces");
        }
        let namespaces = Self { layout, ranges: Mutex::new(ranges) };
        for uid in volumes::teardown::existing(&namespaces.layout).unwrap_or_default() {
            // One that is wrong is told of when its pod needs it.
            if let Err(error) = namespaces.recall(&uid) {
                tracing::warn!(%error, pod = uid, "user namespace of a pod is not known");
            }
        }
        namespaces
    }

    /// The namespace of a pod, the same whenever it is asked for. Blocks.
    ///
    /// # Errors
    /// No range is left, or the one that it had cannot be used any more.
    pub fn of(&self, uid: &str) -> Result<UserNamespace, Error> {
        let is_known = self.lock().as_ref().is_ok_and(|ranges| ranges.of(uid).is_some());
        if !is_known && !self.recall(uid)? {
            self.take(uid)?;
        }
        self.with(|ranges| {
            let mapping =
                ranges.of(uid).map(|first| IdMapping { host_id: first, container_id: 0, length: ranges.size });
            let ids: Vec<_> = mapping.into_iter().collect();
            Ok(UserNamespace { mode: NamespaceMode::Pod.into(), uids: ids.clone(), gids: ids })
        })
    }

    /// Takes in what the pod's folder says; whether it says anything.
    fn recall(&self, uid: &str) -> Result<bool, Error> {
        let path = self.path(uid);
        let fail = |message: String| Error::File { path: path.clone(), message };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(fail(error.to_string())),
        };
        let mappings: Mappings = serde_json::from_slice(&text)
            .map_err(|error| fail(format!("invalid user namespace mappings file: {error}")))?;
        let (first, size) =
            mappings.range().map_err(|why| fail(format!("invalid user namespace configuration: {why}")))?;
        self.with(|ranges| ranges.record(uid, first, size).map_err(fail)).map(|()| true)
    }

    fn take(&self, uid: &str) -> Result<(), Error> {
        let (first, size) = self.with(|ranges| Ok((ranges.take(uid).ok_or(Error::Exhausted)?, ranges.size)))?;
        let path = self.path(uid);
        let written = std::fs::create_dir_all(self.layout.pod(uid))
            .and_then(|()| write_atomic(&path, &serde_json::to_vec(&Mappings::one(first, size))?, 0o600));
        written.map_err(|error| {
            // What is not written down would be somebody else's after a restart.
            self.release(uid);
            Error::File { path, message: error.to_string() }
        })
    }

    /// The folder of a pod is gone, and with it what ran.
    pub fn release(&self, uid: &str) {
        if let Ok(ranges) = self.lock().as_mut() {
            ranges.release(uid);
        }
    }

    /// Works with the ranges, if the node has any.
    fn with<T>(&self, work: impl FnOnce(&mut Ranges) -> Result<T, Error>) -> Result<T, Error> {
        let mut guard = self.lock();
        work(guard.as_mut().map_err(|why| Error::NoRanges(why.clone()))?)
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.layout.pod(uid).join(FILE)
    }

    fn lock(&self) -> MutexGuard<'_, Result<Ranges, String>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The namespace of a pod that shares the node's.
#[must_use]
pub fn of_node() -> UserNamespace {
    UserNamespace { mode: NamespaceMode::Node.into(), ..UserNamespace::default() }
}

/// The subordinate ids of the user `kubelet`, or all but the first range where there is no such user, or it has none.
fn subordinate(root: &Path, size: u32) -> Result<(u32, u64), String> {
    let everything = (size, (1_u64 << 32) - u64::from(size));
    let read = |name: &str| std::fs::read_to_string(root.join("etc").join(name)).unwrap_or_default();
    if entries(&read("passwd")).next().is_none() {
        return Ok(everything);
    }
    let (uids, gids) = (read("subuid"), read("subgid"));
    let (uids, gids): (Vec<_>, Vec<_>) = (entries(&uids).collect(), entries(&gids).collect());
    if uids != gids {
        return Err(format!("mismatched subuids and subgids for user {OWNER:?}"));
    }
    match uids.as_slice() {
        [] => Ok(everything),
        [one] => {
            let parsed =
                one.split_once(':').and_then(|(first, count)| Some((first.parse().ok()?, count.parse().ok()?)));
            parsed.ok_or_else(|| format!("invalid subordinate ids {one:?} of user {OWNER:?}"))
        }
        _ => Err(format!("user {OWNER:?} has more than one range of subordinate ids")),
    }
}

/// What follows the user's name in the lines that begin with it.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix(OWNER)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests;
