//! Which objects the pods of each node refer to (`plugin/pkg/auth/authorizer/node/graph.go`).

use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};

use serde_json::Value;

use crate::Observer;

const INTERESTS: [(&str, &str); 1] = [("", "pods")];
const MIRROR_POD: &str = "kubernetes.io/config.mirror";

/// Follows pods; answers whether a node has one that refers to an object.
#[derive(Debug, Default)]
pub struct NodeGraph {
    edges: RwLock<Edges>,
}

#[derive(Debug, Default)]
struct Edges {
    /// What each bound pod refers to, and its node.
    pods: HashMap<Box<str>, (Box<str>, BTreeSet<Reference>)>,
    /// How many pods of a node refer to an object.
    nodes: HashMap<Reference, HashMap<Box<str>, usize>>,
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
    ServiceAccount,
}

impl NodeGraph {
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn has_path(&self, node: &str, target: Target, namespace: &str, name: &str) -> bool {
        let reference = Reference { target, namespace: namespace.into(), name: name.into() };
        let edges = self.edges.read().unwrap_or_else(PoisonError::into_inner);
        edges.nodes.get(&reference).is_some_and(|nodes| nodes.contains_key(node))
    }
}

impl Edges {
    fn remove_pod(&mut self, key: &str) {
        let Some((node, references)) = self.pods.remove(key) else { return };
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

    fn set_pod(&mut self, key: &str, node: &str, references: BTreeSet<Reference>) {
        if self.pods.get(key).is_some_and(|(old_node, old)| old_node.as_ref() == node && *old == references) {
            return;
        }
        self.remove_pod(key);
        for reference in &references {
            *self.nodes.entry(reference.clone()).or_default().entry(node.into()).or_default() += 1;
        }
        self.pods.insert(key.into(), (node.into(), references));
    }
}

impl Observer for NodeGraph {
    fn interests(&self) -> &[(&'static str, &'static str)] {
        &INTERESTS
    }

    fn observe(&self, group: &str, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        if (group, resource) != ("", "pods") {
            return;
        }
        let node = object.and_then(|pod| pod.pointer("/spec/nodeName")).and_then(Value::as_str).unwrap_or_default();
        let bound = object.filter(|_| !node.is_empty()).map(|pod| references(namespace, name, pod));
        let key = format!("{namespace}/{name}");
        let mut edges = self.edges.write().unwrap_or_else(PoisonError::into_inner);
        match bound {
            Some(references) => edges.set_pod(&key, node, references),
            None => edges.remove_pod(&key),
        }
    }
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
    found.references
}

struct Collector<'a> {
    namespace: &'a str,
    references: BTreeSet<Reference>,
}

impl Collector<'_> {
    fn add(&mut self, target: Target, name: Option<&Value>) {
        let Some(name) = name.and_then(Value::as_str).filter(|name| !name.is_empty()) else { return };
        self.references.insert(Reference { target, namespace: self.namespace.into(), name: name.into() });
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
        for secret in
            ["/csi/nodePublishSecretRef/name", "/cephfs/secretRef/name", "/rbd/secretRef/name", "/iscsi/secretRef/name"]
        {
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
