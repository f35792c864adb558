//! VolumeBinding: a pod goes where its volumes are, and of claims that wait for it the volumes are chosen with the node.

use std::collections::BTreeMap;

use api::volumes::{BIND_COMPLETED, Place, allows_node, claim_class, find, has_annotation};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::Reason;
use crate::node::NodeFacts;
use crate::pod::PodInfo;
use crate::volumes::{Choice, Volumes, key};

/// The provisioner of classes whose volumes are made by people.
const BY_HAND: &str = "kubernetes.io/no-provisioner";

/// Labels by which volumes without node affinity say where they are, each with its older name (the VolumeZone plugin).
const ZONES: [[&str; 2]; 2] = [
    ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"],
    ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"],
];

/// Whether a volume's labels allow the node. Of several zones one is enough; a node that says nothing of the kind has all.
fn is_in_zone(volume: &PersistentVolume, node: &BTreeMap<String, String>) -> bool {
    let Some(labels) = &volume.metadata.labels else { return true };
    if !ZONES.iter().flatten().any(|key| node.contains_key(*key)) {
        return true;
    }
    ZONES.iter().all(|names| {
        let mut wanted = names.iter().filter_map(|key| labels.get(*key));
        let here = names.iter().find_map(|key| node.get(*key));
        wanted.all(|zones| here.is_some_and(|here| zones.split("__").any(|zone| zone == here)))
    })
}

/// What a pod's claims ask for, of whatever node.
#[derive(Default)]
pub struct Prepared<'a> {
    bound: Vec<&'a PersistentVolume>,
    /// A volume of these is missing.
    lost: bool,
    waiting: Vec<&'a PersistentVolumeClaim>,
    known: Option<&'a Volumes>,
}

impl<'a> Prepared<'a> {
    /// Gathers it. Costs nothing for a pod without claims.
    ///
    /// # Errors
    /// Why the pod can go nowhere yet.
    pub fn new(pod: &PodInfo, known: &'a Volumes) -> Result<Self, String> {
        let mut prepared = Self { known: Some(known), ..Self::default() };
        for name in &pod.claims {
            let missing = || format!("persistentvolumeclaim {name:?} not found");
            let claim = known.claim(&format!("{}/{name}", pod.namespace)).ok_or_else(missing)?;
            prepared.add(name, claim, known)?;
        }
        Ok(prepared)
    }

    fn add(&mut self, name: &str, claim: &'a PersistentVolumeClaim, known: &'a Volumes) -> Result<(), String> {
        let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
        if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
            return Err(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        let completed = has_annotation(claim.metadata.annotations.as_ref(), BIND_COMPLETED);
        if completed && !volume.is_empty() {
            match known.volume(volume) {
                Some(volume) => self.bound.push(volume),
                None => self.lost = true,
            }
            return Ok(());
        }
        let class = known.class(claim_class(claim));
        let delayed = class.and_then(|class| class.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer");
        if !delayed || !volume.is_empty() {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        self.waiting.push(claim);
        Ok(())
    }

    /// Why a node does not do.
    #[must_use]
    pub fn refuses(&self, facts: &NodeFacts) -> Option<Reason> {
        if self.lost {
            return Some(Reason::VolumeLost);
        }
        if self.bound.iter().any(|volume| !allows_node(volume, &facts.labels, &facts.name)) {
            return Some(Reason::VolumeElsewhere);
        }
        if self.bound.iter().any(|volume| !is_in_zone(volume, &facts.labels)) {
            return Some(Reason::VolumeZone);
        }
        (!self.waiting.is_empty() && self.choose(facts).is_none()).then_some(Reason::NoVolume)
    }

    /// What the claims that wait get on a node; `None` when it has not enough.
    #[must_use]
    pub fn choose(&self, facts: &NodeFacts) -> Option<Vec<Choice>> {
        let Some(known) = self.known else { return Some(Vec::new()) };
        let mut taken: Vec<String> = Vec::new();
        let mut choices = Vec::with_capacity(self.waiting.len());
        for claim in &self.waiting {
            let found = find(claim, known.free(), Place::Node(&facts.labels, &facts.name, &taken));
            let volume = found.map(key);
            let by_hand = || known.class(claim_class(claim)).is_none_or(|class| class.provisioner == BY_HAND);
            if volume.is_none() && by_hand() {
                return None;
            }
            taken.extend(volume.clone());
            choices.push(Choice { claim: key(*claim), volume });
        }
        Some(choices)
    }
}
