//! Claims, volumes and classes as the scheduler knows them.

use std::collections::{BTreeMap, HashMap, HashSet};

use api::volumes::claim_ref;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;

/// One change of them.
#[derive(Debug)]
pub enum Change {
    /// A claim as it is now.
    Claim(Box<PersistentVolumeClaim>),
    /// A claim is gone, by key.
    ClaimGone(String),
    /// These are all claims.
    ClaimsListed(HashSet<String>),
    /// A volume as it is now.
    Volume(Box<PersistentVolume>),
    /// A volume is gone, by name.
    VolumeGone(String),
    /// These are all volumes.
    VolumesListed(HashSet<String>),
    /// A class as it is now.
    Class(Box<StorageClass>),
    /// A class is gone, by name.
    ClassGone(String),
    /// These are all classes.
    ClassesListed(HashSet<String>),
}

/// What a claim gets on the node that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// `namespace/name` of the claim.
    pub claim: String,
    /// The volume; `None` when a driver is to make one there.
    pub volume: Option<String>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Volumes {
    claims: HashMap<String, PersistentVolumeClaim>,
    volumes: BTreeMap<String, PersistentVolume>,
    classes: HashMap<String, StorageClass>,
    /// Volumes that were chosen and are not written yet, with the uid of the pod that they were chosen for.
    assumed: HashMap<String, String>,
}

/// `namespace/name`, or the name alone.
#[must_use]
pub fn key<K: kube::Resource>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

impl Volumes {
    /// Takes a change over.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Claim(claim) => drop(self.claims.insert(key(&*claim), *claim)),
            Change::ClaimGone(key) => drop(self.claims.remove(&key)),
            Change::ClaimsListed(all) => self.claims.retain(|key, _| all.contains(key)),
            Change::Volume(volume) => drop(self.volumes.insert(key(&*volume), *volume)),
            Change::VolumeGone(name) => drop(self.volumes.remove(&name)),
            Change::VolumesListed(all) => self.volumes.retain(|name, _| all.contains(name)),
            Change::Class(class) => drop(self.classes.insert(key(&*class), *class)),
            Change::ClassGone(name) => drop(self.classes.remove(&name)),
            Change::ClassesListed(all) => self.classes.retain(|name, _| all.contains(name)),
        }
    }

    /// Volumes that were chosen for a pod are nobody else's.
    pub fn assume(&mut self, pod: &str, choices: &[Choice]) {
        let volumes = choices.iter().filter_map(|choice| choice.volume.clone());
        self.assumed.extend(volumes.map(|volume| (volume, pod.to_owned())));
    }

    /// What was chosen for a pod is written, or will not be.
    pub fn settle(&mut self, pod: &str) {
        self.assumed.retain(|_, owner| owner != pod);
    }

    /// A claim by key.
    #[must_use]
    pub fn claim(&self, key: &str) -> Option<&PersistentVolumeClaim> {
        self.claims.get(key)
    }

    /// A volume by name.
    #[must_use]
    pub fn volume(&self, name: &str) -> Option<&PersistentVolume> {
        self.volumes.get(name)
    }

    /// A class by name.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<&StorageClass> {
        self.classes.get(name)
    }

    /// Volumes that can be chosen.
    pub fn free(&self) -> impl Iterator<Item = &PersistentVolume> {
        let assumed = |name: &String| self.assumed.contains_key(name);
        self.volumes.iter().filter(move |(name, volume)| !assumed(name) || claim_ref(volume).is_some()).map(|(_, v)| v)
    }
}
