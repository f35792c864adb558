//! What a node has given a pod of the resources that its spec asks for, and what is in force already (KEP-1287).
//!
//! A spec that is resized is a wish. The node allocates it when there is room, and then actuates it: with a restart of
//! containers whose `resizePolicy` says so, in place otherwise.

use std::collections::BTreeMap;

use api::ContainerId;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use serde::{Deserialize, Serialize};

/// Resources that can be resized.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// The resources of a pod, where they can be resized.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// `metadata.generation` of the pod that asked for them.
    pub generation: Option<i64>,
    /// `spec.resources`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<ResourceRequirements>,
    /// `resources` of containers and init containers, by name.
    pub containers: BTreeMap<String, ResourceRequirements>,
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Actuated {
    /// The resources that the pod's cgroup was written for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Allocation>,
    /// What holds for containers that were resized in place ([`api::resources::in_effect`]). For others holds what they
    /// were created with.
    pub containers: BTreeMap<ContainerId, ResourceRequirements>,
}

/// Why a pod does not get what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deferral {
    /// `metadata.generation` of the pod that asks.
    pub generation: Option<i64>,
    /// It never gets it, and does not have to wait for it.
    pub infeasible: bool,
    /// The sentence for people.
    pub message: String,
}

impl Allocation {
    /// What a pod asks for.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        Self {
            generation: pod.metadata.generation,
            pod: spec.and_then(|spec| spec.resources.clone()),
            containers: spec.into_iter().flat_map(resizable).map(|c| (c.name.clone(), own(c))).collect(),
        }
    }

    /// What a pod was given by an agent of which no record is left: containers tell what they were created with.
    #[must_use]
    pub fn found<'a>(pod: &Pod, containers: impl IntoIterator<Item = &'a crate::Container>) -> Self {
        let mut newest: BTreeMap<&str, &crate::Container> = BTreeMap::new();
        for container in containers.into_iter().filter(|container| container.resources.is_some()) {
            let known = newest.entry(&container.name).or_insert(container);
            if container.attempt > known.attempt {
                *known = container;
            }
        }
        let mut found = Self::of(pod);
        for (name, resources) in &mut found.containers {
            let container = newest.get(name.as_str());
            if let Some(created_with) = container.and_then(|container| container.resources.as_ref()) {
                *resources = own_part(created_with, resources);
            }
        }
        found
    }

    /// Whether another grants the same.
    #[must_use]
    pub fn grants_as(&self, other: &Self) -> bool {
        same(self.pod.as_ref(), other.pod.as_ref())
            && self.containers.len() == other.containers.len()
            && self.containers.iter().all(|(name, own)| same(Some(own), other.containers.get(name)))
    }

    /// The spec with these resources in place of its own; `None` where that changes nothing.
    #[must_use]
    pub fn apply(&self, spec: &PodSpec) -> Option<PodSpec> {
        let differs = |container: &Container| {
            self.containers.get(&container.name).is_some_and(|given| Some(given) != container.resources.as_ref())
        };
        if self.pod == spec.resources && !resizable(spec).any(differs) {
            return None;
        }
        let mut spec = PodSpec { resources: self.pod.clone(), ..spec.clone() };
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            if let Some(given) = self.containers.get(&container.name) {
                container.resources = Some(given.clone());
            }
        }
        Some(spec)
    }
}

fn resizable(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn own(container: &Container) -> ResourceRequirements {
    container.resources.clone().unwrap_or_default()
}

/// Whether two have the same amounts of what can be resized.
#[must_use]
pub fn same(one: Option<&ResourceRequirements>, other: Option<&ResourceRequirements>) -> bool {
    RESIZABLE.iter().all(|name| amounts(one, name) == amounts(other, name))
}

/// Request and limit; none is as good as nothing.
fn amounts(resources: Option<&ResourceRequirements>, name: &str) -> [Quantity; 2] {
    let read = |list: Option<&BTreeMap<String, _>>| {
        list.and_then(|list| list.get(name)).and_then(|text| Quantity::read(text).ok()).unwrap_or(Quantity::ZERO)
    };
    let of = resources;
    [read(of.and_then(|r| r.requests.as_ref())), read(of.and_then(|r| r.limits.as_ref()))]
}

/// Of what holds for a container the part that its own resources name: other limits are its pod's.
pub(crate) fn own_part(holds: &ResourceRequirements, own: &ResourceRequirements) -> ResourceRequirements {
    let mut part = holds.clone();
    let named = |name: &String| own.limits.as_ref().is_some_and(|limits| limits.contains_key(name));
    part.limits = part.limits.map(|limits| limits.into_iter().filter(|(name, _)| named(name)).collect());
    part.limits = part.limits.filter(|limits: &BTreeMap<_, _>| !limits.is_empty());
    part
}

/// Whether a container must be restarted to get from what it has to what it is to have.
#[must_use]
pub fn needs_restart(container: &Container, has: &ResourceRequirements, wants: &ResourceRequirements) -> bool {
    let policies = container.resize_policy.iter().flatten();
    let mut restarting = policies.filter(|policy| policy.restart_policy == "RestartContainer");
    restarting.any(|policy| amounts(Some(wants), &policy.resource_name) != amounts(Some(has), &policy.resource_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(cpu: &str) -> Pod {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        serde_json::from_value(json!({"metadata": {"generation": 2}, "spec": {"containers": [container]}})).unwrap()
    }

    fn resources(value: Value) -> ResourceRequirements {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn equal_amounts_are_no_resize() {
        let one = Allocation::of(&pod("1"));
        assert!(one.grants_as(&Allocation::of(&pod("1000m"))));
        assert!(!one.grants_as(&Allocation::of(&pod("1001m"))));
        assert_eq!(one.apply(pod("1").spec.as_ref().unwrap()), None);
        let applied = one.apply(pod("2").spec.as_ref().unwrap()).unwrap();
        assert_eq!(Some(applied), pod("1").spec);
        // Storage cannot be resized, and nothing is as good as no amount.
        let with = resources(json!({"requests": {"ephemeral-storage": "1Gi"}, "limits": {"cpu": "0"}}));
        assert!(same(Some(&with), None));
    }

    #[test]
    fn the_policy_of_the_resource_that_changes_counts() {
        let container: Container = serde_json::from_value(json!({
            "name": "c", "resources": {"requests": {"cpu": "2", "memory": "1Gi"}},
            "resizePolicy": [
                {"resourceName": "cpu", "restartPolicy": "NotRequired"},
                {"resourceName": "memory", "restartPolicy": "RestartContainer"}]
        }))
        .unwrap();
        let restarts = |has: Value| needs_restart(&container, &resources(has), container.resources.as_ref().unwrap());
        assert!(!restarts(json!({"requests": {"cpu": "1", "memory": "1Gi"}})));
        assert!(restarts(json!({"requests": {"cpu": "2", "memory": "2Gi"}})));
    }
}
