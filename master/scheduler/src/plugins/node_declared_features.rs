//! Nodes say what they can do that not every node of a cluster can (KEP-5328).

use k8s_openapi::api::core::v1::PodSpec;

use crate::node::NodeFacts;
use crate::pod::PodInfo;

/// What a node must be able to do to run such a pod.
#[must_use]
pub fn required(spec: &PodSpec) -> Vec<&'static str> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut rules = containers.flat_map(|container| container.restart_policy_rules.iter().flatten());
    let restarts_all = rules.any(|rule| rule.action == "RestartAllContainers");
    restarts_all.then_some("RestartAllContainersOnContainerExits").into_iter().collect()
}

/// Whether the node can do all that the pod needs.
#[must_use]
pub fn has_all(pod: &PodInfo, facts: &NodeFacts) -> bool {
    pod.features.iter().all(|feature| facts.features.iter().any(|has| has == feature))
}
