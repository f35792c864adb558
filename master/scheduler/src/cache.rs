//! What the scheduler knows of the cluster: nodes with what they have left, and which pod is where.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::budgets::Budgets;
use crate::node::{NodeFacts, NodeInfo};
use crate::nominated::Nominated;
use crate::pod::PodInfo;
use crate::volumes::Volumes;

/// The labels of each namespace.
pub type Namespaces = BTreeMap<String, BTreeMap<String, String>>;

/// Every node and every pod that is on one. Pods that were only decided on ("assumed") count like bound ones.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: Vec<NodeInfo>,
    /// Position in `nodes` by name; also nodes without facts, of which only pods were seen.
    position: HashMap<String, usize>,
    /// The node of each pod, by uid.
    node_of: HashMap<String, String>,
    /// Pods of each application in each zone.
    in_zone: HashMap<(u64, String), u32>,
    /// Names of nodes with pods that have required anti-affinity.
    guarded: BTreeSet<String>,
    namespaces: Namespaces,
    volumes: Volumes,
    nominated: Nominated,
    budgets: Budgets,
    known: usize,
}

impl Cache {
    /// All nodes that exist, in a stable order.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeFacts, &NodeInfo)> {
        self.nodes.iter().filter_map(|node| node.facts.as_ref().map(|facts| (facts, node)))
    }

    /// The nodes from `start` on, round about.
    pub fn nodes_from(&self, start: usize) -> impl Iterator<Item = (&NodeFacts, &NodeInfo)> {
        let count = self.nodes.len();
        let order = (0..count).map(move |step| (start + step) % count);
        order.filter_map(|at| self.nodes.get(at)).filter_map(|node| node.facts.as_ref().map(|facts| (facts, node)))
    }

    /// How many nodes exist.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.known
    }

    /// One node by name, if it exists.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<(&NodeFacts, &NodeInfo)> {
        let node = self.nodes.get(*self.position.get(name)?)?;
        node.facts.as_ref().map(|facts| (facts, node))
    }

    /// The nodes that run a pod with required anti-affinity.
    pub fn guarded(&self) -> impl Iterator<Item = (&NodeFacts, &NodeInfo)> {
        self.guarded.iter().filter_map(|name| self.node(name))
    }

    /// How many pods of an application run in a zone.
    #[must_use]
    pub fn application_in_zone(&self, application: u64, zone: &str) -> u32 {
        self.in_zone.get(&(application, zone.to_owned())).copied().unwrap_or(0)
    }

    /// Claims and volumes.
    #[must_use]
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// The same, to change them.
    pub fn volumes_mut(&mut self) -> &mut Volumes {
        &mut self.volumes
    }

    /// Pods that room is kept for.
    #[must_use]
    pub fn nominated(&self) -> &Nominated {
        &self.nominated
    }

    /// The same, to change them.
    pub fn nominated_mut(&mut self) -> &mut Nominated {
        &mut self.nominated
    }

    /// PodDisruptionBudgets.
    #[must_use]
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// The same, to change them.
    pub fn budgets_mut(&mut self) -> &mut Budgets {
        &mut self.budgets
    }

    /// The labels of all namespaces.
    #[must_use]
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Takes a namespace's labels over.
    pub fn set_namespace(&mut self, name: String, labels: BTreeMap<String, String>) {
        self.namespaces.insert(name, labels);
    }

    /// Forgets a namespace.
    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// Forgets all namespaces but these.
    pub fn keep_namespaces(&mut self, present: &HashSet<String>) {
        self.namespaces.retain(|name, _| present.contains(name));
    }

    /// Takes a Node object over; returns what was known before.
    pub fn set_node(&mut self, facts: NodeFacts) -> Option<NodeFacts> {
        let at = self.position_of(&facts.name);
        let before = self.nodes.get(at).and_then(|node| node.facts.clone());
        self.known += usize::from(before.is_none());
        let moved = before.as_ref().and_then(NodeFacts::zone) != facts.zone();
        if moved {
            self.count_zone(at, false);
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.facts = Some(facts);
        }
        if moved {
            self.count_zone(at, true);
        }
        before
    }

    /// Forgets a Node object; its pods stay counted until they are gone too.
    pub fn remove_node(&mut self, name: &str) {
        let Some(&at) = self.position.get(name) else { return };
        self.count_zone(at, false);
        if let Some(node) = self.nodes.get_mut(at)
            && node.facts.take().is_some()
        {
            self.known -= 1;
        }
        self.drop_if_empty(name);
    }

    /// Counts a pod on its node (`pod.node_name`). A pod that was counted elsewhere or differently is moved.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.uid);
        let at = self.position_of(&pod.node_name);
        self.node_of.insert(pod.uid.clone(), pod.node_name.clone());
        let Some(node) = self.nodes.get_mut(at) else { return };
        if let Some(zone) = node.facts.as_ref().and_then(NodeFacts::zone) {
            *self.in_zone.entry((pod.application, zone.to_owned())).or_default() += 1;
        }
        let name = pod.node_name.clone();
        node.add(pod);
        if node.with_anti_affinity > 0 {
            self.guarded.insert(name);
        }
    }

    /// Counts a pod out; true when it was counted.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(name) = self.node_of.remove(uid) else { return false };
        let Some(node) = self.position.get(&name).and_then(|at| self.nodes.get_mut(*at)) else { return false };
        let application = node.pods.get(uid).map(|pod| pod.application);
        node.remove(uid);
        if node.with_anti_affinity == 0 {
            self.guarded.remove(&name);
        }
        if let (Some(application), Some(zone)) = (application, node.facts.as_ref().and_then(NodeFacts::zone)) {
            uncount(&mut self.in_zone, (application, zone.to_owned()), 1);
        }
        self.drop_if_empty(&name);
        true
    }

    /// The node that a pod is counted on.
    #[must_use]
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.node_of.get(uid).map(String::as_str)
    }

    /// A counted pod.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        let at = self.position.get(self.node_of.get(uid)?)?;
        self.nodes.get(*at)?.pods.get(uid)
    }

    /// The uids of all counted pods.
    #[must_use]
    pub fn pod_uids(&self) -> Vec<String> {
        self.node_of.keys().cloned().collect()
    }

    fn position_of(&mut self, name: &str) -> usize {
        if let Some(&at) = self.position.get(name) {
            return at;
        }
        self.nodes.push(NodeInfo::default());
        self.position.insert(name.to_owned(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn drop_if_empty(&mut self, name: &str) {
        let Some(&at) = self.position.get(name) else { return };
        if !self.nodes.get(at).is_some_and(|node| node.facts.is_none() && node.pods.is_empty()) {
            return;
        }
        self.position.remove(name);
        self.nodes.swap_remove(at);
        let last = self.nodes.len();
        if let Some(moved) = self.position.values_mut().find(|position| **position == last) {
            *moved = at;
        }
    }

    fn count_zone(&mut self, at: usize, up: bool) {
        let Some(node) = self.nodes.get(at) else { return };
        let Some(zone) = node.facts.as_ref().and_then(NodeFacts::zone) else { return };
        for (application, count) in &node.applications {
            let key = (*application, zone.to_owned());
            if up {
                *self.in_zone.entry(key).or_default() += count;
            } else {
                uncount(&mut self.in_zone, key, *count);
            }
        }
    }
}

fn uncount(counts: &mut HashMap<(u64, String), u32>, key: (u64, String), by: u32) {
    if let Some(count) = counts.get_mut(&key) {
        *count = count.saturating_sub(by);
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
