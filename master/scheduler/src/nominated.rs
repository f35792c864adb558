//! Pods that room was made for on a node (`status.nominatedNodeName`) and that are not on it yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::pod::PodInfo;

/// Which pods have room kept for them, and where.
#[derive(Debug, Default)]
pub struct Nominated {
    node_of: HashMap<String, String>,
    on: BTreeMap<String, BTreeMap<String, Arc<PodInfo>>>,
}

impl Nominated {
    /// Keeps room on a node for a pod, and no longer on another.
    pub fn set(&mut self, pod: &PodInfo, node: &str) {
        self.remove(&pod.uid);
        self.node_of.insert(pod.uid.clone(), node.to_owned());
        self.on.entry(node.to_owned()).or_default().insert(pod.uid.clone(), pod.placed_on(node));
    }

    /// The pod needs no room any more; true when some was kept.
    pub fn remove(&mut self, uid: &str) -> bool {
        let Some(node) = self.node_of.remove(uid) else { return false };
        if let Some(pods) = self.on.get_mut(&node) {
            pods.remove(uid);
            if pods.is_empty() {
                self.on.remove(&node);
            }
        }
        true
    }

    /// The node that has room for the pod.
    #[must_use]
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.node_of.get(uid).map(String::as_str)
    }

    /// The pods that go to the node no later than this one.
    pub fn before<'a>(&'a self, pod: &PodInfo, node: &str) -> impl Iterator<Item = &'a Arc<PodInfo>> {
        let (uid, priority) = (pod.uid.clone(), pod.priority);
        self.of(node).filter(move |other| other.priority >= priority && other.uid != uid)
    }

    /// The pods that must look for room anew when one of this priority takes it on the node.
    #[must_use]
    pub fn below(&self, priority: i32, node: &str) -> Vec<Arc<PodInfo>> {
        self.of(node).filter(|other| other.priority < priority).cloned().collect()
    }

    fn of(&self, node: &str) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.on.get(node).into_iter().flat_map(BTreeMap::values)
    }
}
