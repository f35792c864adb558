//! Which objects the pods of each node refer to (`plugin/pkg/auth/authorizer/node/graph.go`).

use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};

use serde_json::Value;

use crate::Observer;

const INTERESTS: [(&str, &str); 4] = [
    ("", "pods"),
    ("", "persistentvolumes"),
    ("storage.k8s.io", "volumeattachments"),
    ("resource.k8s.io", "resourceslices"),
];
const MIRROR_POD: &str = "kubernetes.io/config.mirror";

/// Follows what belongs to nodes; answers whether an object is of use to one:
///
/// ```text
/// node <- pod <- secret, configmap, serviceaccount, resourceclaim
/// node <- pod <- persistentvolumeclaim <- persistentvolume <- secret
/// node <- volumeattachment, resourceslice
/// ```
#[derive(Debug, Default)]
pub struct NodeGraph {
    edges: RwLock<Edges>,
}

#[derive(Debug, Default)]
struct Edges {
    /// Each object that is of one node (a bound pod, an attachment, a slice): its node, and itself with what it refers to.
    owners: HashMap<Reference, (Box<str>, BTreeSet<Reference>)>,
    /// How many owners of a node refer to an object.
    nodes: HashMap<Reference, HashMap<Box<str>, usize>>,
    /// Each bound volume, by its name.
    volumes: HashMap<Box<str>, Volume>,
    /// The volumes that name a Secret.
    secrets: HashMap<Reference, BTreeSet<Box<str>>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Volume {
    claim: Reference,
    secrets: BTreeSet<Reference>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Reference {
    pub target: Target,
    pub namespace: Box<str>,
    pub name: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Target {
    Pod,
    Secret,
    ConfigMap,
    PersistentVolumeClaim,
    PersistentVolume,
    ServiceAccount,
    ResourceClaim,
    ResourceSlice,
    VolumeAttachment,
}

impl NodeGraph {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether an object is of use to a node. What is of the whole cluster has no namespace.
    pub(crate) fn has_path(&self, node: &str, target: Target, namespace: &str, name: &str) -> bool {
        let edges = self.edges.read().unwrap_or_else(PoisonError::into_inner);
        let by_volume = |volume: &str| edges.volumes.get(volume).is_some_and(|volume| edges.leads(&volume.claim, node));
        let reference = Reference::new(target, namespace, name);
        match target {
            Target::PersistentVolume => by_volume(name),
            Target::Secret if !edges.leads(&reference, node) => {
                edges.secrets.get(&reference).is_some_and(|volumes| volumes.iter().any(|volume| by_volume(volume)))
            }
            _ => edges.leads(&reference, node),
        }
    }
}

impl Reference {
    fn new(target: Target, namespace: &str, name: &str) -> Self {
        Reference { target, namespace: namespace.into(), name: name.into() }
    }
}

impl Edges {
    fn leads(&self, reference: &Reference, node: &str) -> bool {
        self.nodes.get(reference).is_some_and(|nodes| nodes.contains_key(node))
    }

    fn remove_owner(&mut self, owner: &Reference) {
        let Some((node, references)) = self.owners.remove(owner) else { return };
        for reference in references {
            let Some(nodes) = self.nodes.get_mut(&reference) else { continue };
            if let Some(count) = nodes.get_mut(&node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&node);
                }
            }
            if nodes.is_empty() {
                self.nodes.remove(&reference);
            }
        }
    }

    fn set_owner(&mut self, owner: Reference, node: &str, references: BTreeSet<Reference>) {
        if self.owners.get(&owner).is_some_and(|(old_node, old)| old_node.as_ref() == node && *old == references) {
            return;
        }
        self.remove_owner(&owner);
        for reference in &references {
            *self.nodes.entry(reference.clone()).or_default().entry(node.into()).or_default() += 1;
        }
        self.owners.insert(owner, (node.into(), references));
    }

    fn set_volume(&mut self, name: &str, volume: Option<Volume>) {
        if self.volumes.get(name) == volume.as_ref() {
            return;
        }
        for secret in self.volumes.remove(name).into_iter().flat_map(|old| old.secrets) {
            let Some(volumes) = self.secrets.get_mut(&secret) else { continue };
            volumes.remove(name);
            if volumes.is_empty() {
                self.secrets.remove(&secret);
            }
        }
        let Some(volume) = volume else { return };
        for secret in &volume.secrets {
            self.secrets.entry(secret.clone()).or_default().insert(name.into());
        }
        self.volumes.insert(name.into(), volume);
    }
}

impl Observer for NodeGraph {
    fn interests(&self) -> &[(&'static str, &'static str)] {
        &INTERESTS
    }

    fn observe(&self, group: &str, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        let target = match (group, resource) {
            ("", "pods") => Target::Pod,
            ("", "persistentvolumes") => {
                let volume = object.and_then(volume);
                return self.edges.write().unwrap_or_else(PoisonError::into_inner).set_volume(name, volume);
            }
            ("storage.k8s.io", "volumeattachments") => Target::VolumeAttachment,
            ("resource.k8s.io", "resourceslices") => Target::ResourceSlice,
            _ => return,
        };
        let owner = Reference::new(target, namespace, name);
        let node =
            object.and_then(|object| object.pointer("/spec/nodeName")).and_then(Value::as_str).unwrap_or_default();
        let references = object.filter(|_| !node.is_empty()).map(|object| match target {
            Target::Pod => references(namespace, name, object),
            _ => BTreeSet::from([owner.clone()]),
        });
        let mut edges = self.edges.write().unwrap_or_else(PoisonError::into_inner);
        match references {
            Some(references) => edges.set_owner(owner, node, references),
            None => edges.remove_owner(&owner),
        }
    }
}

/// A volume's claim, and the Secrets that nodes need for it (`VisitPVSecretNames`; not those of controllers).
fn volume(volume: &Value) -> Option<Volume> {
    const OF_NODES: [&str; 10] = [
        "/csi/nodePublishSecretRef",
        "/csi/nodeStageSecretRef",
        "/csi/nodeExpandSecretRef",
        "/cephfs/secretRef",
        "/cinder/secretRef",
        "/flexVolume/secretRef",
        "/iscsi/secretRef",
        "/rbd/secretRef",
        "/scaleIO/secretRef",
        "/storageos/secretRef",
    ];
    let spec = &volume["spec"];
    let text = |of: &'_ Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
    let claimed = &spec["claimRef"];
    let (namespace, name) = (text(claimed, "namespace"), text(claimed, "name"));
    if name.is_empty() {
        return None;
    }
    let named = OF_NODES.iter().filter_map(|pointer| spec.pointer(pointer));
    let mut secrets: Vec<(String, String)> =
        named.map(|secret| (text(secret, "namespace"), text(secret, "name"))).collect();
    secrets.push((text(&spec["azureFile"], "secretNamespace"), text(&spec["azureFile"], "secretName")));
    let secrets = secrets
        .iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(own, name)| Reference::new(Target::Secret, if own.is_empty() { &namespace } else { own }, name));
    Some(Volume { secrets: secrets.collect(), claim: Reference::new(Target::PersistentVolumeClaim, &namespace, &name) })
}

/// Everything of its namespace that a pod names. A mirror pod opens nothing: its node wrote it itself.
fn references(namespace: &str, name: &str, pod: &Value) -> BTreeSet<Reference> {
    let mut found = Collector { namespace, references: BTreeSet::new() };
    found.add(Target::Pod, Some(&Value::from(name)));
    if pod.pointer("/metadata/annotations").is_some_and(|annotations| annotations.get(MIRROR_POD).is_some()) {
        return found.references;
    }
    let spec = &pod["spec"];
    found.add(Target::ServiceAccount, spec.get("serviceAccountName"));
    for secret in items(&spec["imagePullSecrets"]) {
        found.add(Target::Secret, secret.get("name"));
    }
    for containers in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(&spec[containers]) {
            found.add_environment(container);
        }
    }
    for volume in items(&spec["volumes"]) {
        found.add_volume(name, volume);
    }
    for claim in items(&spec["resourceClaims"]) {
        found.add(Target::ResourceClaim, claim.get("resourceClaimName"));
    }
    // What was made of templates for it.
    for made in items(&pod["status"]["resourceClaimStatuses"]) {
        found.add(Target::ResourceClaim, made.get("resourceClaimName"));
    }
    found.add(Target::ResourceClaim, pod.pointer("/status/extendedResourceClaimStatus/resourceClaimName"));
    found.references
}

struct Collector<'a> {
    namespace: &'a str,
    references: BTreeSet<Reference>,
}

impl Collector<'_> {
    fn add(&mut self, target: Target, name: Option<&Value>) {
        let Some(name) = name.and_then(Value::as_str).filter(|name| !name.is_empty()) else { return };
        self.references.insert(Reference::new(target, self.namespace, name));
    }

    fn add_environment(&mut self, container: &Value) {
        for source in items(&container["envFrom"]) {
            self.add(Target::Secret, source.pointer("/secretRef/name"));
            self.add(Target::ConfigMap, source.pointer("/configMapRef/name"));
        }
        for variable in items(&container["env"]) {
            self.add(Target::Secret, variable.pointer("/valueFrom/secretKeyRef/name"));
            self.add(Target::ConfigMap, variable.pointer("/valueFrom/configMapKeyRef/name"));
        }
    }

    fn add_volume(&mut self, pod: &str, volume: &Value) {
        self.add(Target::Secret, volume.pointer("/secret/secretName"));
        self.add(Target::ConfigMap, volume.pointer("/configMap/name"));
        self.add(Target::PersistentVolumeClaim, volume.pointer("/persistentVolumeClaim/claimName"));
        for secret in [
            "/azureFile/secretName",
            "/cephfs/secretRef/name",
            "/cinder/secretRef/name",
            "/csi/nodePublishSecretRef/name",
            "/flexVolume/secretRef/name",
            "/iscsi/secretRef/name",
            "/rbd/secretRef/name",
            "/scaleIO/secretRef/name",
            "/storageos/secretRef/name",
        ] {
            self.add(Target::Secret, volume.pointer(secret));
        }
        if volume.get("ephemeral").is_some_and(|source| !source.is_null()) {
            let volume = volume["name"].as_str().unwrap_or_default();
            self.add(Target::PersistentVolumeClaim, Some(&Value::from(format!("{pod}-{volume}"))));
        }
        for source in volume.pointer("/projected/sources").map(items).into_iter().flatten() {
            self.add(Target::Secret, source.pointer("/secret/name"));
            self.add(Target::ConfigMap, source.pointer("/configMap/name"));
        }
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}
