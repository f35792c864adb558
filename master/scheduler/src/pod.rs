//! What the scheduler keeps of a pod.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    NodeSelector, ObjectReference, Pod, PodAffinityTerm, PodCondition, PodSpec, PreferredSchedulingTerm, Toleration,
    TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::plugins::node_declared_features;
use crate::resources::Resources;

/// What a container without a request is taken to use when nodes are scored (not when they are filtered).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;
/// The condition of a pod that others make leave, and its reason when a scheduler does.
pub(crate) const DISRUPTION_TARGET: &str = "DisruptionTarget";
pub(crate) const PREEMPTED: &str = "PreemptionByScheduler";
/// Labels that differ between pods of one application.
const REVISION_LABELS: [&str; 4] = [
    "pod-template-hash",
    "controller-revision-hash",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];

/// A port of the host that a pod occupies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The address it binds; `0.0.0.0` takes the port on all addresses.
    pub ip: String,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// Port number.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be bound on one host.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        let same_address = self.ip == other.ip || self.ip == "0.0.0.0" || other.ip == "0.0.0.0";
        self.port == other.port && self.protocol == other.protocol && same_address
    }
}

/// One term of pod (anti-)affinity with its namespaces resolved.
#[derive(Debug, Clone)]
pub struct AffinityTerm {
    /// Namespaces named by the term, or the pod's own.
    pub namespaces: Vec<String>,
    /// Selects further namespaces by their labels; the empty selector selects all.
    pub namespace_selector: Option<LabelSelector>,
    /// Selects pods; none selects nothing.
    pub selector: Option<LabelSelector>,
    /// The node label whose values are the domains.
    pub topology_key: String,
    /// Only for preferred terms.
    pub weight: i64,
}

impl AffinityTerm {
    /// Whether the term selects this pod.
    #[must_use]
    pub fn selects(&self, pod: &PodInfo, namespaces: &BTreeMap<String, BTreeMap<String, String>>) -> bool {
        let in_namespace = self.namespaces.contains(&pod.namespace)
            || self.namespace_selector.as_ref().is_some_and(|selector| {
                let empty = BTreeMap::new();
                matches(selector, namespaces.get(&pod.namespace).unwrap_or(&empty))
            });
        in_namespace && self.selector.as_ref().is_some_and(|selector| matches(selector, &pod.labels))
    }
}

/// Where a pod wants to be relative to nodes and to other pods. Most pods want nothing.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// spec.nodeSelector
    pub node_selector: BTreeMap<String, String>,
    /// Required node affinity.
    pub required_nodes: Option<NodeSelector>,
    /// Preferred node affinity.
    pub preferred_nodes: Vec<PreferredSchedulingTerm>,
    /// Required pod affinity.
    pub affinity: Vec<AffinityTerm>,
    /// Required pod anti-affinity.
    pub anti_affinity: Vec<AffinityTerm>,
    /// Preferred pod affinity, and anti-affinity with negative weights.
    pub preferred_pods: Vec<AffinityTerm>,
    /// spec.topologySpreadConstraints; the API server has merged matchLabelKeys into the selectors.
    pub spread: Vec<TopologySpreadConstraint>,
}

/// What the scheduler keeps of a pod.
#[derive(Debug, Clone)]
pub struct PodInfo {
    /// metadata.uid
    pub uid: String,
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: String,
    /// metadata.generation
    pub generation: Option<i64>,
    /// metadata.labels
    pub labels: BTreeMap<String, String>,
    /// spec.nodeName, empty while unscheduled.
    pub node_name: String,
    /// spec.priority
    pub priority: i32,
    /// metadata.creationTimestamp
    pub created: Timestamp,
    /// Effective requests, one pod included.
    pub requests: Resources,
    /// CPU and memory as scored: with defaults for what is not requested.
    pub scored: (i64, i64),
    /// Occupied ports of the host.
    pub host_ports: Vec<HostPort>,
    /// spec.tolerations
    pub tolerations: Vec<Toleration>,
    /// Affinities, selectors and spreading.
    pub wishes: Option<Box<Wishes>>,
    /// Pods of one application have the same value: namespace and labels without those of the revision.
    pub application: u64,
    /// spec.schedulingGates is not empty.
    pub gated: bool,
    /// metadata.deletionTimestamp is set.
    pub deleting: bool,
    /// Names of the claims of its volumes.
    pub claims: Vec<String>,
    /// What its node must be able to do, of that which not every node can (KEP-5328).
    pub features: Vec<&'static str>,
    /// The images of its containers and volumes.
    pub images: Vec<String>,
    /// How many containers it has, those of its start too.
    pub containers: i64,
    /// spec.preemptionPolicy is not Never.
    pub preempts: bool,
    /// status.nominatedNodeName, empty without one.
    pub nominated: String,
    /// status.startTime
    pub started: Option<Timestamp>,
    /// It is being deleted because a scheduler needs its room.
    pub preempted: bool,
    /// Message of the PodScheduled condition when that is False.
    pub unschedulable_message: Option<String>,
}

impl PodInfo {
    /// Reads a pod.
    #[must_use]
    pub fn new(pod: &Pod) -> Arc<Self> {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let (meta, status) = (&pod.metadata, pod.status.as_ref());
        let namespace = meta.namespace.clone().unwrap_or_default();
        let labels = meta.labels.clone().unwrap_or_default();
        let mut requests = Resources::from_list(&api::resources::write(&api::resources::held(pod)));
        requests.pods = 1;
        let mut info = Self {
            uid: meta.uid.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            generation: meta.generation,
            node_name: spec.node_name.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            scored: scored(spec, &requests),
            requests,
            host_ports: host_ports(spec),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            wishes: wishes(spec, &namespace).map(Box::new),
            application: application(&namespace, &labels),
            gated: spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
            deleting: meta.deletion_timestamp.is_some(),
            claims: api::volumes::claims(meta.name.as_deref().unwrap_or_default(), spec).collect(),
            features: node_declared_features::required(spec),
            images: images(spec),
            containers: i64::try_from(spec.containers.len() + spec.init_containers.iter().flatten().count())
                .unwrap_or(1),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            nominated: status.and_then(|status| status.nominated_node_name.clone()).unwrap_or_default(),
            started: status.and_then(|status| status.start_time.as_ref()).map(|time| time.0),
            preempted: meta.deletion_timestamp.is_some() && is_preempted(pod),
            unschedulable_message: condition(pod, "PodScheduled", "False").and_then(|told| told.message.clone()),
            namespace,
            labels,
        };
        if !info.node_name.is_empty() {
            info.forget_search();
        }
        Arc::new(info)
    }

    /// The same pod on a node, without what only matters before.
    #[must_use]
    pub fn placed_on(&self, node: &str) -> Arc<Self> {
        let mut placed = Self { node_name: node.to_owned(), ..self.clone() };
        placed.forget_search();
        Arc::new(placed)
    }

    fn forget_search(&mut self) {
        self.tolerations = Vec::new();
        self.images = Vec::new();
        self.unschedulable_message = None;
        self.nominated = String::new();
        if self.wishes.as_ref().is_some_and(|wishes| {
            wishes.affinity.is_empty() && wishes.anti_affinity.is_empty() && wishes.preferred_pods.is_empty()
        }) {
            self.wishes = None;
        }
    }

    /// Required pod anti-affinity terms.
    #[must_use]
    pub fn anti_affinity(&self) -> &[AffinityTerm] {
        self.wishes.as_ref().map_or(&[], |wishes| wishes.anti_affinity.as_slice())
    }

    /// How events name the pod.
    #[must_use]
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

/// Whether a selector selects these labels. A selector that is not valid selects nothing.
#[must_use]
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    api::selector::label_selector_matches(selector, labels)
}

fn scored(spec: &PodSpec, requests: &Resources) -> (i64, i64) {
    let unset = |resource: &str| {
        let without = spec.containers.iter().filter(|container| {
            let asked = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            !asked.is_some_and(|list| list.contains_key(resource))
        });
        i64::try_from(without.count()).unwrap_or(0)
    };
    (requests.milli_cpu + unset("cpu") * DEFAULT_MILLI_CPU, requests.memory + unset("memory") * DEFAULT_MEMORY)
}

fn images(spec: &PodSpec) -> Vec<String> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let volumes = spec.volumes.iter().flatten().filter_map(|volume| volume.image.as_ref()?.reference.clone());
    containers.filter_map(|container| container.image.clone()).chain(volumes).collect()
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|container| api::resources::is_sidecar(container));
    let ports = sidecars.chain(&spec.containers).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let ip = port.host_ip.clone().filter(|ip| !ip.is_empty() && ip != "::");
            Some(HostPort {
                ip: ip.unwrap_or_else(|| "0.0.0.0".into()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: number,
            })
        })
        .collect()
}

fn application(namespace: &str, labels: &BTreeMap<String, String>) -> u64 {
    let mut hasher = DefaultHasher::new();
    namespace.hash(&mut hasher);
    for (key, value) in labels {
        if !REVISION_LABELS.contains(&key.as_str()) {
            (key, value).hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn condition<'a>(pod: &'a Pod, type_: &str, status: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_ && condition.status == status)
}

fn is_preempted(pod: &Pod) -> bool {
    condition(pod, DISRUPTION_TARGET, "True").and_then(|told| told.reason.as_deref()) == Some(PREEMPTED)
}

fn wishes(spec: &PodSpec, namespace: &str) -> Option<Wishes> {
    let mut wishes = Wishes {
        node_selector: spec.node_selector.clone().unwrap_or_default(),
        spread: spec.topology_spread_constraints.clone().unwrap_or_default(),
        ..Wishes::default()
    };
    if let Some(affinity) = &spec.affinity {
        if let Some(nodes) = &affinity.node_affinity {
            wishes.required_nodes = nodes.required_during_scheduling_ignored_during_execution.clone();
            wishes.preferred_nodes =
                nodes.preferred_during_scheduling_ignored_during_execution.clone().unwrap_or_default();
        }
        if let Some(pods) = &affinity.pod_affinity {
            let required = pods.required_during_scheduling_ignored_during_execution.iter().flatten();
            wishes.affinity = required.map(|one| term(one, namespace, 0)).collect();
            let preferred = pods.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            let preferred = preferred.map(|one| term(&one.pod_affinity_term, namespace, one.weight.into()));
            wishes.preferred_pods.extend(preferred);
        }
        if let Some(pods) = &affinity.pod_anti_affinity {
            let required = pods.required_during_scheduling_ignored_during_execution.iter().flatten();
            wishes.anti_affinity = required.map(|one| term(one, namespace, 0)).collect();
            let preferred = pods.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            let preferred = preferred.map(|one| term(&one.pod_affinity_term, namespace, -i64::from(one.weight)));
            wishes.preferred_pods.extend(preferred);
        }
    }
    let none = wishes.node_selector.is_empty()
        && wishes.required_nodes.is_none()
        && wishes.preferred_nodes.is_empty()
        && wishes.affinity.is_empty()
        && wishes.anti_affinity.is_empty()
        && wishes.preferred_pods.is_empty()
        && wishes.spread.is_empty();
    (!none).then_some(wishes)
}

fn term(term: &PodAffinityTerm, namespace: &str, weight: i64) -> AffinityTerm {
    let mut namespaces = term.namespaces.clone().unwrap_or_default();
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces.push(namespace.to_owned());
    }
    AffinityTerm {
        namespaces,
        namespace_selector: term.namespace_selector.clone(),
        selector: term.label_selector.clone(),
        topology_key: term.topology_key.clone(),
        weight,
    }
}
