//! The pods of a DaemonSet, and which revision they are of. Pure.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Toleration,
};

use crate::owner::controller_reference;
use crate::pods;
use crate::revisions::REVISION_LABEL;

const GENERATION_LABEL: &str = "pod-template-generation";
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
const NODE_NAME_FIELD: &str = "metadata.name";

pub(super) fn hash_of(revision: &ControllerRevision) -> String {
    revision.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL)).cloned().unwrap_or_default()
}

/// The hash of the template that a pod was made of.
pub(super) fn hash_of_pod(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL)).map_or("", String::as_str)
}

/// The pod for one node: bound to it by node affinity, so that the scheduler places it and other rules still hold.
pub(super) fn pod_for(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let (namespace, name) =
        (set.metadata.namespace.as_deref().unwrap_or_default(), set.metadata.name.as_deref().unwrap_or_default());
    let mut pod = pods::from_template(&template, namespace, name, controller_reference(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_LABEL.into(), hash.into());
    labels.insert(GENERATION_LABEL.into(), template_generation(set).to_string());
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
