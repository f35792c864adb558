//! ControllerRevisions of a DaemonSet, and the pods made of its template. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::json;

use crate::hash::template_hash;
use crate::owner::controller_reference;
use crate::pods;

/// The label with the hash of the template, on revisions and pods.
pub(super) const HASH_LABEL: &str = "controller-revision-hash";
const GENERATION_LABEL: &str = "pod-template-generation";
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
const NODE_NAME_FIELD: &str = "metadata.name";

/// The revision of the current template, numbered after all others.
pub(super) fn of(set: &DaemonSet, known: &[Arc<ControllerRevision>]) -> ControllerRevision {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let hash = template_hash(&template, collisions);
    let mut data = json!(template);
    if let Some(fields) = data.as_object_mut() {
        fields.insert("$patch".into(), json!("replace"));
    }
    let data = RawExtension(json!({"spec": {"template": data}}));
    let same = |one: &&Arc<ControllerRevision>| one.data.as_ref() == Some(&data);
    let others = known.iter().filter(|one| !same(one)).map(|one| one.revision).max().unwrap_or(0);
    let mut labels = template.metadata.and_then(|meta| meta.labels).unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", set.metadata.name.as_deref().unwrap_or_default())),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: set.metadata.annotations.clone(),
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        data: Some(data),
        revision: others + 1,
    }
}

pub(super) fn same_data(a: &ControllerRevision, b: &ControllerRevision) -> bool {
    a.data == b.data
}

pub(super) fn hash_of(revision: &ControllerRevision) -> String {
    revision.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL)).cloned().unwrap_or_default()
}

/// The hash of the template that a pod was made of.
pub(super) fn hash_of_pod(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL)).map_or("", String::as_str)
}

/// The names of old revisions that are too many.
pub(super) fn surplus(
    set: &DaemonSet,
    known: &[Arc<ControllerRevision>],
    current: &str,
    owned: &[Arc<Pod>],
) -> Vec<String> {
    let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let is_live = |one: &ControllerRevision| {
        let hash = hash_of(one);
        hash == current || owned.iter().any(|pod| hash_of_pod(pod) == hash)
    };
    let mut old: Vec<&Arc<ControllerRevision>> = known.iter().filter(|one| !is_live(one)).collect();
    old.sort_by_key(|one| one.revision);
    let count = old.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    old.into_iter().take(count).filter_map(|one| one.metadata.name.clone()).collect()
}

/// The pod for one node: bound to it by node affinity, so that the scheduler places it and other rules still hold.
pub(super) fn pod_for(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let (namespace, name) =
        (set.metadata.namespace.as_deref().unwrap_or_default(), set.metadata.name.as_deref().unwrap_or_default());
    let mut pod = pods::from_template(&template, namespace, name, controller_reference(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.into());
    labels.insert(GENERATION_LABEL.into(), template_generation(set).to_string());
    super::own(set, &mut pod);
    if let Some(spec) = &mut pod.spec {
        bind(spec.affinity.get_or_insert_default(), node);
        let tolerations = spec.tolerations.get_or_insert_default();
        for (key, effect) in DEFAULT_TOLERATIONS {
            add_toleration(tolerations, key, effect);
        }
        if spec.host_network == Some(true) {
            add_toleration(tolerations, "node.kubernetes.io/network-unavailable", "NoSchedule");
        }
    }
    pod
}

/// What every daemon pod tolerates (DaemonSet documentation, "Taints and tolerations").
const DEFAULT_TOLERATIONS: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

fn add_toleration(all: &mut Vec<Toleration>, key: &str, effect: &str) {
    let toleration = Toleration {
        key: Some(key.into()),
        operator: Some("Exists".into()),
        effect: Some(effect.into()),
        ..Toleration::default()
    };
    if !all.contains(&toleration) {
        all.push(toleration);
    }
}

/// All tolerations that a pod of the template will have.
pub(super) fn tolerations(set: &DaemonSet) -> Vec<Toleration> {
    pod_for(set, "", "").spec.and_then(|spec| spec.tolerations).unwrap_or_default()
}

fn bind(affinity: &mut Affinity, node: &str) {
    let requirement = NodeSelectorRequirement {
        key: NODE_NAME_FIELD.into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let terms = |expressions: Option<Vec<NodeSelectorRequirement>>| NodeSelectorTerm {
        match_expressions: expressions,
        match_fields: Some(vec![requirement.clone()]),
    };
    let nodes: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    // The template's own terms were looked at when the node was chosen: one term with the node's name replaces them.
    nodes.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![terms(None)] });
}

/// The node that a pod without node was made for.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().filter_map(|term| term.match_fields.as_ref()).flatten();
    let mut named = fields.filter(|field| field.key == NODE_NAME_FIELD && field.operator == "In");
    named.find_map(|field| field.values.as_ref()?.first().map(String::as_str))
}

fn template_generation(set: &DaemonSet) -> i64 {
    let annotation = set.metadata.annotations.as_ref().and_then(|all| all.get(GENERATION_ANNOTATION));
    annotation.and_then(|text| text.parse().ok()).or(set.metadata.generation).unwrap_or(1)
}
