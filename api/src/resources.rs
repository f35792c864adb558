//! What a pod asks for in sum.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::quantity::Quantity;

/// Amounts by resource name.
pub type ResourceList = BTreeMap<String, Quantity>;
/// The same as an API object holds them.
type Texts = BTreeMap<String, Text>;

/// Reads the list of an API object; what is not a quantity is left out.
#[must_use]
pub fn read(list: Option<&Texts>) -> ResourceList {
    list.into_iter().flatten().filter_map(|(name, text)| Some((name.clone(), Quantity::read(text).ok()?))).collect()
}

/// Writes a list as an API object holds it.
#[must_use]
pub fn write(list: &ResourceList) -> BTreeMap<String, Text> {
    list.iter().map(|(name, quantity)| (name.clone(), quantity.to_text())).collect()
}

/// Adds `more` to `sum`.
pub fn add(sum: &mut ResourceList, more: &ResourceList) {
    for (name, quantity) in more {
        let total = sum.entry(name.clone()).or_insert(Quantity::ZERO);
        *total = total.plus(quantity);
    }
}

/// Raises `list` to `other` where that is more.
pub fn raise(list: &mut ResourceList, other: &ResourceList) {
    for (name, quantity) in other {
        let have = list.entry(name.clone()).or_insert(*quantity);
        if *have < *quantity {
            *have = *quantity;
        }
    }
}

/// Whether an init container is a sidecar (KEP-753).
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What the scheduler and the node's admission count for a pod: the greater of all containers with all sidecars, and
/// of each init container with the sidecars before it; replaced by `spec.resources` where that is given (KEP-2837);
/// plus `spec.overhead`.
#[must_use]
pub fn requests(spec: &PodSpec) -> ResourceList {
    let mut total = container_requests(spec);
    let pod_level = spec.resources.as_ref().map(|resources| read(resources.requests.as_ref())).unwrap_or_default();
    total.extend(pod_level.into_iter().filter(|(name, _)| is_pod_level(name)));
    add(&mut total, &read(spec.overhead.as_ref()));
    total
}

/// What a pod holds of its node: what its spec asks for or, where that is more, what it was given or has in force, as
/// while it is resized (KEP-1287). A resize that is infeasible is not counted.
#[must_use]
pub fn held(pod: &Pod) -> ResourceList {
    let Some(spec) = &pod.spec else { return ResourceList::new() };
    let status = pod.status.as_ref();
    let mut total = in_force(spec, status, |resources| resources.requests.as_ref(), |given| given);
    add(&mut total, &read(spec.overhead.as_ref()));
    total
}

/// The limits of a pod by the same rule; what it was given is no limit.
#[must_use]
pub fn held_limits(pod: &Pod) -> ResourceList {
    let Some(spec) = &pod.spec else { return ResourceList::new() };
    let mut total = in_force(spec, pod.status.as_ref(), |resources| resources.limits.as_ref(), |_| None);
    add_to_limited(&mut total, spec.overhead.as_ref());
    total
}

/// One list of each container's resources, the more of spec and status; `given` says what of the allocated counts.
fn in_force(
    spec: &PodSpec,
    status: Option<&PodStatus>,
    part: fn(&ResourceRequirements) -> Option<&Texts>,
    given: fn(Option<&Texts>) -> Option<&Texts>,
) -> ResourceList {
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let infeasible = crate::conditions::get(conditions, "PodResizePending")
        .is_some_and(|condition| condition.reason.as_deref() == Some("Infeasible"));
    let lists = status.into_iter().flat_map(|status| [&status.container_statuses, &status.init_container_statuses]);
    let statuses = lists.flatten().flatten();
    let known: BTreeMap<&str, &ContainerStatus> = statuses.map(|status| (status.name.as_str(), status)).collect();
    let effective = |asked: ResourceList, has: Option<&ResourceRequirements>, allocated: Option<&Texts>| {
        let Some(has) = has else { return asked };
        let mut list = if infeasible { ResourceList::new() } else { asked };
        raise(&mut list, &read(part(has)));
        raise(&mut list, &read(given(allocated)));
        list
    };
    let mut total = sum(spec, |container| {
        let asked = read(container.resources.as_ref().and_then(part));
        let status = known.get(container.name.as_str());
        let (has, allocated) = status.map_or((None, None), |s| (s.resources.as_ref(), s.allocated_resources.as_ref()));
        effective(asked, has, allocated)
    });
    if let Some(asked) = spec.resources.as_ref().map(|resources| read(part(resources))) {
        let (has, allocated) = status.map_or((None, None), |s| (s.resources.as_ref(), s.allocated_resources.as_ref()));
        let effective = effective(asked.clone(), has, allocated);
        total.extend(effective.into_iter().filter(|(name, _)| is_pod_level(name) && asked.contains_key(name)));
    }
    total
}

/// Overhead counts where there is a limit.
fn add_to_limited(limits: &mut ResourceList, overhead: Option<&Texts>) {
    let overhead = read(overhead);
    for (name, quantity) in limits {
        if let Some(more) = overhead.get(name) {
            *quantity = quantity.plus(more);
        }
    }
}

/// The limits of a pod by the same rule; overhead is added only to resources that are limited.
#[must_use]
pub fn limits(spec: &PodSpec) -> ResourceList {
    let mut total = aggregate(spec, |resources| read(resources.limits.as_ref()));
    let pod_level = spec.resources.as_ref().map(|resources| read(resources.limits.as_ref())).unwrap_or_default();
    total.extend(pod_level.into_iter().filter(|(name, _)| is_pod_level(name)));
    add_to_limited(&mut total, spec.overhead.as_ref());
    total
}

/// The requests of the containers alone, by the same rule.
#[must_use]
pub fn container_requests(spec: &PodSpec) -> ResourceList {
    aggregate(spec, |resources| read(resources.requests.as_ref()))
}

/// What holds for a container: its own resources, with the limits of its pod where it has none (KEP-2837).
#[must_use]
pub fn in_effect(spec: &PodSpec, container: &Container) -> ResourceRequirements {
    let mut resources = container.resources.clone().unwrap_or_default();
    let Some(of_pod) = spec.resources.as_ref().and_then(|resources| resources.limits.as_ref()) else {
        return resources;
    };
    let own = read(resources.limits.as_ref());
    for name in ["cpu", "memory"] {
        let is_limited = own.get(name).is_some_and(|limit| !limit.is_zero());
        if let Some(limit) = of_pod.get(name).filter(|_| !is_limited) {
            resources.limits.get_or_insert_default().insert(name.to_owned(), limit.clone());
        }
    }
    resources
}

/// Whether a resource is neither Kubernetes' own nor counted by quotas (`IsExtendedResourceName`).
#[must_use]
pub fn is_extended(name: &str) -> bool {
    let is_native = !name.contains('/') || name.contains("kubernetes.io/");
    !is_native && !name.starts_with("requests.")
}

/// Resources that `spec.resources` may name.
fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn aggregate(spec: &PodSpec, list: impl Fn(&ResourceRequirements) -> ResourceList) -> ResourceList {
    sum(spec, |container| container.resources.as_ref().map(&list).unwrap_or_default())
}

fn sum(spec: &PodSpec, of: impl Fn(&Container) -> ResourceList) -> ResourceList {
    let mut total = ResourceList::new();
    for container in &spec.containers {
        add(&mut total, &of(container));
    }
    let (mut sidecars, mut peak) = (ResourceList::new(), ResourceList::new());
    for container in spec.init_containers.iter().flatten() {
        let mut own = of(container);
        if is_sidecar(container) {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut peak, &own);
    }
    raise(&mut total, &peak);
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(json: serde_json::Value) -> String {
        let spec = serde_json::from_value(json).unwrap();
        write(&requests(&spec)).iter().map(|(name, text)| format!("{name}={} ", text.0)).collect()
    }

    fn container(cpu: &str, memory: &str) -> serde_json::Value {
        serde_json::json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    #[test]
    fn a_resize_holds_the_more_of_old_and_new() {
        let pod = |asked: &str, reason: &str| -> Pod {
            let requests = |cpu: &str| serde_json::json!({"requests": {"cpu": cpu}});
            let status =
                serde_json::json!({"name": "c", "resources": requests("300m"), "allocatedResources": {"cpu": "200m"}});
            let pending = serde_json::json!({"type": "PodResizePending", "status": "True", "reason": reason});
            serde_json::from_value(serde_json::json!({
                "spec": {"containers": [{"name": "c", "resources": requests(asked)}]},
                "status": {"containerStatuses": [status], "conditions": [pending]}
            }))
            .unwrap()
        };
        let held = |asked: &str, reason: &str| held(&pod(asked, reason))["cpu"].milli_value();
        assert_eq!(held("100m", "Deferred"), 300);
        assert_eq!(held("500m", "Deferred"), 500);
        assert_eq!(held("500m", "Infeasible"), 300);
        let mut pod = pod("100m", "Deferred");
        let limits = serde_json::from_value(serde_json::json!({"limits": {"cpu": "300m"}})).unwrap();
        pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].resources = Some(limits);
        assert_eq!(held_limits(&pod)["cpu"].milli_value(), 300);
    }

    #[test]
    fn limits_of_the_pod_hold_where_a_container_has_none() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "resources": {"limits": {"cpu": "2", "memory": "1Gi", "hugepages-2Mi": "4Mi"}},
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "64Mi"}}}]
        }))
        .unwrap();
        let held = in_effect(&spec, &spec.containers[0]);
        assert_eq!(
            serde_json::to_value(held).unwrap(),
            serde_json::json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "64Mi"}})
        );
        let alone = PodSpec { resources: None, ..spec.clone() };
        assert_eq!(Some(in_effect(&alone, &spec.containers[0])), spec.containers[0].resources);
    }

    #[test]
    fn sums() {
        let sidecar = |cpu: &str| {
            let mut sidecar = container(cpu, "0");
            sidecar["restartPolicy"] = "Always".into();
            sidecar
        };
        let two = [container("100m", "1Gi"), container("200m", "512Mi")];
        assert_eq!(sum(serde_json::json!({"containers": two})), "cpu=300m memory=1536Mi ");
        let init = [container("1", "64Mi")];
        assert_eq!(sum(serde_json::json!({"containers": two, "initContainers": init})), "cpu=1 memory=1536Mi ");
        let init = [sidecar("500m"), container("400m", "0"), sidecar("100m")];
        assert_eq!(sum(serde_json::json!({"containers": two, "initContainers": init})), "cpu=900m memory=1536Mi ");
        let spec =
            serde_json::json!({"containers": two, "overhead": {"cpu": "10m"}, "resources": {"requests": {"cpu": "2"}}});
        assert_eq!(sum(spec), "cpu=2010m memory=1536Mi ");
    }
}
