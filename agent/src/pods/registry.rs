//! The pods of this node as the rest of the agent sees them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use api::{ContainerId, PodUid};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use pod::Allocation;
use tokio::sync::watch;

use crate::metrics::families::ORPHANED_PODS;

/// What is known of one pod.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As the API server has it.
    pub pod: Arc<Pod>,
    /// As the worker has computed it last; not yet known for a new pod.
    pub status: Option<Arc<PodStatus>>,
    /// Whether the node admitted it.
    pub admitted: bool,
    /// Containers that run.
    pub running: Vec<Running>,
    /// The sandbox that they run in.
    pub sandbox: Option<Running>,
    /// Whether it has volumes on the disk.
    pub volumes: bool,
    /// Where those volumes lie that are not in its folder, by name.
    pub elsewhere: BTreeMap<String, PathBuf>,
    /// Ids of all its containers and sandboxes.
    pub parts: Vec<String>,
    /// What the worker saw of them last, as [`super::observe::Everything`] has it; `None` when there was nothing.
    pub seen: Option<u64>,
    /// Whether the API server has that status.
    pub published: bool,
    /// A resize that has to wait.
    pub deferred: Option<Deferred>,
    /// Whether it is still to be: no object, or no manifest, is left of one that only ends.
    pub wanted: bool,
    /// Whether the API server has something under the name of a static pod.
    pub mirrored: bool,
}

/// How far a pod's life is, as a kubelet's metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// It is to run.
    Sync,
    /// It is to end, and something of it runs.
    Terminating,
    /// Nothing of it runs any more.
    Terminated,
}

/// A resize that the node has put off.
#[derive(Debug, Clone)]
pub struct Deferred {
    /// The pod with the resources that it asks for.
    pub asked: Arc<Pod>,
    pub since: Timestamp,
}

/// How a pod gave back resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freed {
    /// It was given less, or is to be given something else.
    Resized,
    /// It has ended.
    Ended,
    /// It is gone, or no longer wanted.
    Removed,
}

/// What runs of a pod: a container, or the sandbox, which has no name in the spec, image or log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub id: ContainerId,
    /// Its name in the spec.
    pub name: String,
    pub image: String,
    /// Nanoseconds since 1970.
    pub started_at: i64,
    /// Where it writes its output.
    pub log: PathBuf,
}

impl From<&pod::Container> for Running {
    fn from(container: &pod::Container) -> Self {
        Self {
            id: container.id.clone(),
            name: container.name.clone(),
            image: container.image.clone(),
            started_at: container.started_at,
            log: container.log_path.clone().into(),
        }
    }
}

impl From<&pod::Sandbox> for Running {
    fn from(sandbox: &pod::Sandbox) -> Self {
        Self {
            id: ContainerId::new(sandbox.id.as_str()),
            name: String::new(),
            image: String::new(),
            started_at: sandbox.created_at,
            log: PathBuf::new(),
        }
    }
}

impl Entry {
    /// Whether it has a place on the node: it was admitted, and has not ended. One whose object is gone, as when it was deleted by
    /// force, gives its place back at once (`filterOutInactivePods`).
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.admitted && self.wanted && !self.has_ended()
    }

    /// Whether an end would still give back something of the node's (`PodResourcesAreReclaimed`).
    #[must_use]
    pub fn holds_resources(&self) -> bool {
        self.sandbox.is_some() || !self.running.is_empty() || self.volumes
    }

    /// How far its life is.
    #[must_use]
    pub fn lifecycle(&self) -> Lifecycle {
        let ends = !self.wanted || self.pod.metadata.deletion_timestamp.is_some() || self.has_ended();
        match (ends, self.sandbox.is_some() || !self.running.is_empty()) {
            (false, _) => Lifecycle::Sync,
            (true, true) => Lifecycle::Terminating,
            (true, false) => Lifecycle::Terminated,
        }
    }

    /// Whether its phase is `Succeeded` or `Failed`. Before a worker has computed a status, that of the object counts.
    fn has_ended(&self) -> bool {
        let status = self.status.as_deref().or(self.pod.status.as_ref());
        api::pod::is_terminal_phase(status.and_then(|status| status.phase.as_deref()))
    }
}

/// All pods, written by their workers.
#[derive(Debug)]
pub struct Registry {
    pods: RwLock<BTreeMap<PodUid, Entry>>,
    /// Pods of which there is nothing but what the runtime has: they end.
    nameless: RwLock<BTreeSet<PodUid>>,
    /// How a pod gave back resources last; told anew each time, while anybody waits for that.
    freed: watch::Sender<Freed>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { pods: RwLock::default(), nameless: RwLock::default(), freed: watch::channel(Freed::Resized).0 }
    }
}

impl Registry {
    /// Changes what is known of a pod.
    pub fn update(&self, uid: &PodUid, pod: &Arc<Pod>, change: impl FnOnce(&mut Entry)) {
        let mut pods = self.pods.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let new = || Entry {
            pod: Arc::clone(pod),
            status: None,
            admitted: false,
            running: Vec::new(),
            sandbox: None,
            volumes: false,
            elsewhere: BTreeMap::new(),
            parts: Vec::new(),
            seen: None,
            published: false,
            deferred: None,
            wanted: true,
            mirrored: false,
        };
        let entry = pods.entry(uid.clone()).or_insert_with(new);
        let before = self.is_awaited().then(|| (Arc::clone(&entry.pod), entry.is_active()));
        if !Arc::ptr_eq(&entry.pod, pod) {
            entry.pod = Arc::clone(pod);
        }
        change(entry);
        if let Some((before, true)) = before {
            let same = Arc::ptr_eq(&before, pod) || Allocation::of(&before).grants_as(&Allocation::of(pod));
            if !entry.is_active() {
                self.free(if entry.wanted { Freed::Ended } else { Freed::Removed });
            } else if !same {
                self.free(Freed::Resized);
            }
        }
    }

    /// Whether anybody waits for resources.
    fn is_awaited(&self) -> bool {
        self.freed.receiver_count() > 0
    }

    fn free(&self, how: Freed) {
        self.freed.send_replace(how);
    }

    /// Changes when a pod gave back resources.
    #[must_use]
    pub fn freed(&self) -> watch::Receiver<Freed> {
        self.freed.subscribe()
    }

    /// A resize has to wait.
    pub fn defer(&self, uid: &PodUid, resize: Deferred) {
        let mut pods = self.pods.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(entry) = pods.get_mut(uid) {
            entry.deferred = Some(resize);
        }
    }

    /// Resizes that wait.
    #[must_use]
    pub fn deferred(&self) -> Vec<(PodUid, Deferred)> {
        let pods = self.pods.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let active = pods.iter().filter(|(_, entry)| entry.is_active());
        active.filter_map(|(uid, entry)| Some((uid.clone(), entry.deferred.clone()?))).collect()
    }

    /// A pod was found of which nobody knows more than that it is to end.
    pub fn found_nameless(&self, uid: &PodUid) {
        let is_new = self.nameless.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(uid.clone());
        if is_new {
            ORPHANED_PODS.count([]);
        }
    }

    /// How many of these there are.
    #[must_use]
    pub fn nameless(&self) -> usize {
        self.nameless.read().unwrap_or_else(std::sync::PoisonError::into_inner).len()
    }

    /// A pod is no more.
    pub fn remove(&self, uid: &PodUid) {
        self.pods.write().unwrap_or_else(std::sync::PoisonError::into_inner).remove(uid);
        self.nameless.write().unwrap_or_else(std::sync::PoisonError::into_inner).remove(uid);
        self.free(Freed::Removed);
    }

    /// The pod of a container or sandbox.
    #[must_use]
    pub fn owner(&self, id: &str) -> Option<PodUid> {
        let pods = self.pods.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let owner = pods.iter().find(|(_, entry)| entry.parts.iter().any(|part| part == id));
        owner.map(|(uid, _)| uid.clone())
    }

    /// Pods that the node has admitted and that have not ended.
    #[must_use]
    pub fn active(&self) -> Vec<(PodUid, Arc<Pod>)> {
        let pods = self.pods.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let active = pods.iter().filter(|(_, entry)| entry.is_active());
        active.map(|(uid, entry)| (uid.clone(), Arc::clone(&entry.pod))).collect()
    }

    /// What is known of one pod.
    #[must_use]
    pub fn entry(&self, uid: &PodUid) -> Option<Entry> {
        self.pods.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(uid).cloned()
    }

    /// What the workers saw of their pods in the runtime; pods of which there was nothing are left out.
    #[must_use]
    pub fn seen(&self) -> HashMap<PodUid, u64> {
        let pods = self.pods.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        pods.iter().filter_map(|(uid, entry)| Some((uid.clone(), entry.seen?))).collect()
    }

    /// Everything there is, at this moment.
    #[must_use]
    pub fn entries(&self) -> Vec<(PodUid, Entry)> {
        let pods = self.pods.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        pods.iter().map(|(uid, entry)| (uid.clone(), entry.clone())).collect()
    }

    /// The pod that a name means now. Another one of that name may still end on the node: it is meant only while there is no other.
    #[must_use]
    pub fn named(&self, namespace: &str, name: &str) -> Option<(PodUid, Entry)> {
        let pods = self.pods.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is = |entry: &Entry| {
            let meta = &entry.pod.metadata;
            meta.namespace.as_deref() == Some(namespace) && meta.name.as_deref() == Some(name)
        };
        let found = pods.iter().filter(|(_, entry)| is(entry)).max_by_key(|(_, entry)| entry.wanted);
        found.map(|(uid, entry)| (uid.clone(), entry.clone()))
    }

    /// The object with the status that the worker computed last.
    fn current(entry: &Entry) -> Arc<Pod> {
        match &entry.status {
            Some(status) => Arc::new(Pod { status: Some(PodStatus::clone(status)), ..Pod::clone(&entry.pod) }),
            None => Arc::clone(&entry.pod),
        }
    }
}

impl crate::serve::Pods for Registry {
    fn all(&self) -> Vec<Arc<Pod>> {
        let entries = self.entries();
        entries.iter().filter(|(_, entry)| entry.wanted).map(|(_, entry)| Self::current(entry)).collect()
    }

    fn get(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.named(namespace, name).map(|(_, entry)| Self::current(&entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::Pods as _;

    #[test]
    fn a_name_means_the_pod_that_is_wanted_and_only_that_is_listed() {
        let registry = Registry::default();
        let pod = |uid: &str| {
            let metadata = serde_json::json!({"namespace": "ns", "name": "p", "uid": uid});
            Arc::new(serde_json::from_value::<Pod>(serde_json::json!({"metadata": metadata})).unwrap())
        };
        let meant = || registry.get("ns", "p").and_then(|pod| pod.metadata.uid.clone());
        // The one that ends first and last in the order of the map.
        for (ends, follows) in [("a", "b"), ("d", "c")] {
            registry.update(&PodUid::new(ends), &pod(ends), |entry| entry.wanted = false);
            assert_eq!((meant().as_deref(), registry.all().len()), (Some(ends), 0));
            registry.update(&PodUid::new(follows), &pod(follows), |_| {});
            assert_eq!((meant().as_deref(), registry.all().len()), (Some(follows), 1));
            for uid in [ends, follows] {
                registry.remove(&PodUid::new(uid));
            }
        }
        assert_eq!(meant(), None);
    }

    #[test]
    fn a_pod_whose_object_is_gone_gives_its_place_back_and_says_so() {
        let registry = Registry::default();
        let (uid, pod) = (PodUid::new("u"), Arc::new(Pod::default()));
        let freed = registry.freed();
        registry.update(&uid, &pod, |entry| entry.admitted = true);
        assert_eq!(registry.active().len(), 1);
        assert!(!freed.has_changed().unwrap());
        registry.update(&uid, &pod, |entry| entry.wanted = false);
        assert_eq!(registry.active().len(), 0);
        assert!(freed.has_changed().unwrap());
        assert_eq!(*freed.borrow(), Freed::Removed);
    }
}
