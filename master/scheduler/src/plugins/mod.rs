//! Filters and scores, one file each, named as kube-scheduler's plugins.

pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_declared_features;
pub mod node_resources;
pub mod score;
pub mod taint_toleration;
pub mod topology_spread;
pub mod volume_binding;
pub mod volume_restrictions;

use std::collections::HashSet;
use std::fmt;

use crate::node::{NodeFacts, NodeInfo};
use crate::pod::PodInfo;
use crate::view::View;
use crate::volumes::Choice;

/// Why a node cannot take a pod. `Display` is the text of kube-scheduler's reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// NodeUnschedulable
    Unschedulable,
    /// NodeName
    OtherNode,
    /// TaintToleration
    Taint,
    /// NodeAffinity
    NodeAffinity,
    /// NodeAffinity: the pod is for nodes with other names.
    NotNamed,
    /// NodePorts
    Ports,
    /// NodeResourcesFit: a resource by name.
    Insufficient(String),
    /// NodeResourcesFit: a resource of which an empty node would not have enough.
    Smaller(String),
    /// NodeResourcesFit: as many pods as the node allows.
    TooManyPods,
    /// PodTopologySpread
    Spread,
    /// PodTopologySpread: the node lacks a label that a constraint names.
    SpreadLabel,
    /// InterPodAffinity: the pod's own affinity.
    PodAffinity,
    /// InterPodAffinity: the pod's own anti-affinity.
    PodAntiAffinity,
    /// InterPodAffinity: the anti-affinity of a pod that is there.
    ExistingAntiAffinity,
    /// VolumeRestrictions: a claim that only one pod may use has one.
    ClaimInUse,
    /// VolumeBinding: what keeps the pod from every node.
    Claim(String),
    /// VolumeBinding: a volume of the pod's is on other nodes.
    VolumeElsewhere,
    /// VolumeZone: a volume of the pod's is labelled with another zone or region.
    VolumeZone,
    /// VolumeBinding: a claim is bound to a volume that does not exist.
    VolumeLost,
    /// VolumeBinding: no volume for a claim that waits for the pod.
    NoVolume,
    /// NodeDeclaredFeatures
    Features,
}

impl Reason {
    /// Whether no removal of pods could change it.
    #[must_use]
    pub fn is_unresolvable(&self) -> bool {
        matches!(
            self,
            Self::Unschedulable
                | Self::OtherNode
                | Self::Taint
                | Self::NodeAffinity
                | Self::NotNamed
                | Self::Smaller(_)
                | Self::SpreadLabel
                | Self::PodAffinity
                | Self::Claim(_)
                | Self::VolumeElsewhere
                | Self::VolumeZone
                | Self::VolumeLost
                | Self::NoVolume
                | Self::Features
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unschedulable => to.write_str("node(s) were unschedulable"),
            Self::OtherNode => to.write_str("node(s) didn't match the requested node name"),
            Self::Taint => to.write_str("node(s) had untolerated taint(s)"),
            Self::NodeAffinity => to.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::NotNamed => to.write_str("node(s) didn't satisfy plugin(s) [NodeAffinity]"),
            Self::Ports => to.write_str("node(s) didn't have free ports for the requested pod ports"),
            Self::Insufficient(resource) | Self::Smaller(resource) => write!(to, "Insufficient {resource}"),
            Self::TooManyPods => to.write_str("Too many pods"),
            Self::Spread => to.write_str("node(s) didn't match pod topology spread constraints"),
            Self::SpreadLabel => {
                to.write_str("node(s) didn't match pod topology spread constraints (missing required label)")
            }
            Self::PodAffinity => to.write_str("node(s) didn't match pod affinity rules"),
            Self::PodAntiAffinity => to.write_str("node(s) didn't match pod anti-affinity rules"),
            Self::ExistingAntiAffinity => to.write_str("node(s) didn't satisfy existing pods anti-affinity rules"),
            Self::ClaimInUse => to.write_str(
                "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by \
                 another pod",
            ),
            Self::Claim(why) => to.write_str(why),
            Self::VolumeElsewhere => to.write_str("node(s) didn't match PersistentVolume's node affinity"),
            Self::VolumeLost => {
                to.write_str("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)")
            }
            Self::Features => to.write_str("node(s) didn't match Pod's required features"),
            Self::VolumeZone => to.write_str("node(s) had no available volume zone"),
            Self::NoVolume => to.write_str("node(s) didn't find available persistent volumes to bind"),
        }
    }
}

/// What the filters need to know of the whole cluster, gathered once for a pod.
pub struct Prepared<'a> {
    pod: &'a PodInfo,
    named: Option<HashSet<&'a str>>,
    pods: inter_pod_affinity::Prepared<'a>,
    spread: topology_spread::Prepared<'a>,
    volumes: Result<volume_binding::Prepared<'a>, String>,
    claim_in_use: bool,
}

impl<'a> Prepared<'a> {
    /// Gathers it. Costs nothing for a pod without wishes in a cluster without required anti-affinity.
    #[must_use]
    pub fn new(pod: &'a PodInfo, view: View<'a>) -> Self {
        Self {
            pod,
            named: node_affinity::named(pod),
            pods: inter_pod_affinity::Prepared::new(pod, view),
            spread: topology_spread::Prepared::new(pod, view),
            volumes: volume_binding::Prepared::new(pod, view.volumes()),
            claim_in_use: volume_restrictions::has_claim_of_another(pod, view),
        }
    }

    /// Whether the node can take the pod: `Err` has the reasons of the first filter that refused.
    ///
    /// # Errors
    /// The reasons, at least one.
    pub fn filter(&self, facts: &NodeFacts, node: &NodeInfo) -> Result<(), Vec<Reason>> {
        let pod = self.pod;
        let one = |reason| Err(vec![reason]);
        let volumes = match &self.volumes {
            Ok(volumes) => volumes,
            Err(why) => return one(Reason::Claim(why.clone())),
        };
        if self.named.as_ref().is_some_and(|names| !names.contains(facts.name.as_str())) {
            return one(Reason::NotNamed);
        }
        if facts.unschedulable && !taint_toleration::tolerates_unschedulable(pod) {
            return one(Reason::Unschedulable);
        }
        if !pod.node_name.is_empty() && pod.node_name != facts.name {
            return one(Reason::OtherNode);
        }
        if taint_toleration::untolerated(pod, facts).is_some() {
            return one(Reason::Taint);
        }
        if !node_affinity::matches(pod, facts) {
            return one(Reason::NodeAffinity);
        }
        if pod.host_ports.iter().any(|port| node.host_ports.iter().any(|taken| taken.conflicts(port))) {
            return one(Reason::Ports);
        }
        let missing = node_resources::missing(pod, facts, node);
        if !missing.is_empty() {
            return Err(missing);
        }
        if self.claim_in_use {
            return one(Reason::ClaimInUse);
        }
        if let Some(reason) = volumes.refuses(facts) {
            return one(reason);
        }
        if let Some(reason) = self.spread.refuses(facts).or_else(|| self.pods.refuses(facts)) {
            return one(reason);
        }
        if !node_declared_features::has_all(pod, facts) {
            return one(Reason::Features);
        }
        Ok(())
    }

    /// What claims that wait for the pod get on a node that can take it.
    #[must_use]
    pub fn choose(&self, facts: &NodeFacts) -> Vec<Choice> {
        self.volumes.as_ref().ok().and_then(|volumes| volumes.choose(facts)).unwrap_or_default()
    }
}
