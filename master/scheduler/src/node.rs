//! What the scheduler keeps of a node, with the sums of the pods on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::pod::{HostPort, PodInfo};
use crate::resources::Resources;

/// The label by which nodes are grouped into zones.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// The label by which single nodes are told apart.
pub const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// What a Node object says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeFacts {
    /// metadata.name
    pub name: String,
    /// metadata.labels
    pub labels: BTreeMap<String, String>,
    /// spec.taints
    pub taints: Vec<Taint>,
    /// spec.unschedulable
    pub unschedulable: bool,
    /// status.allocatable
    pub allocatable: Resources,
    /// status.declaredFeatures
    pub features: Vec<String>,
    /// Image names that the node has, with their sizes.
    pub images: BTreeMap<String, i64>,
}

impl NodeFacts {
    /// Reads a Node.
    #[must_use]
    pub fn new(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let mut images = BTreeMap::new();
        for image in status.and_then(|status| status.images.as_ref()).into_iter().flatten() {
            for name in image.names.iter().flatten() {
                images.insert(name.clone(), image.size_bytes.unwrap_or(0));
            }
        }
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            allocatable: status
                .and_then(|status| status.allocatable.as_ref())
                .map(Resources::from_list)
                .unwrap_or_default(),
            features: status.and_then(|status| status.declared_features.clone()).unwrap_or_default(),
            images,
        }
    }

    /// The node's zone, if it is labelled with one.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.labels.get(ZONE_LABEL).map(String::as_str)
    }
}

/// A node and the sums of the pods on it, kept incrementally.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    /// The Node object, or none yet: pods may be seen before their node.
    pub facts: Option<NodeFacts>,
    /// Pods on it by uid.
    pub pods: HashMap<String, Arc<PodInfo>>,
    /// Sum of their requests.
    pub requested: Resources,
    /// Sum of their CPU and memory as scored.
    pub scored: (i64, i64),
    /// Occupied host ports.
    pub host_ports: Vec<HostPort>,
    /// How many pods of each application run here.
    pub applications: HashMap<u64, u32>,
    /// How many of the pods have required anti-affinity.
    pub with_anti_affinity: u32,
    /// How many of the pods have any wish about other pods.
    pub with_pod_affinity: u32,
}

impl NodeInfo {
    /// Counts a pod in.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored = (self.scored.0 + pod.scored.0, self.scored.1 + pod.scored.1);
        self.host_ports.extend(pod.host_ports.iter().cloned());
        *self.applications.entry(pod.application).or_default() += 1;
        self.with_anti_affinity += u32::from(!pod.anti_affinity().is_empty());
        self.with_pod_affinity += u32::from(pod.wishes.is_some());
        self.pods.insert(pod.uid.clone(), pod);
    }

    /// Counts a pod out; false when it was not here.
    pub fn remove(&mut self, uid: &str) -> bool {
        let Some(pod) = self.pods.remove(uid) else { return false };
        self.requested.subtract(&pod.requests);
        self.scored = (self.scored.0 - pod.scored.0, self.scored.1 - pod.scored.1);
        for port in &pod.host_ports {
            if let Some(at) = self.host_ports.iter().position(|taken| taken == port) {
                self.host_ports.swap_remove(at);
            }
        }
        if let Some(count) = self.applications.get_mut(&pod.application) {
            *count -= 1;
            if *count == 0 {
                self.applications.remove(&pod.application);
            }
        }
        self.with_anti_affinity -= u32::from(!pod.anti_affinity().is_empty());
        self.with_pod_affinity -= u32::from(pod.wishes.is_some());
        true
    }
}
