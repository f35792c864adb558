//! What a pod asks for in sum.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::quantity::Quantity;

/// Amounts by resource name.
pub type ResourceList = BTreeMap<String, Quantity>;

/// Reads the list of an API object; what is not a quantity is left out.
#[must_use]
pub fn read(list: Option<&BTreeMap<String, Text>>) -> ResourceList {
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
pub fn pod_requests(spec: &PodSpec) -> BTreeMap<String, Text> {
    write(&requests(spec))
}

/// As [`pod_requests`], as numbers.
#[must_use]
pub fn requests(spec: &PodSpec) -> ResourceList {
    let mut total = aggregate(spec, |resources| read(resources.requests.as_ref()));
    let pod_level = spec.resources.as_ref().map(|resources| read(resources.requests.as_ref())).unwrap_or_default();
    total.extend(pod_level.into_iter().filter(|(name, _)| is_pod_level(name)));
    add(&mut total, &read(spec.overhead.as_ref()));
    total
}

/// The limits of a pod by the same rule; overhead is added only to resources that are limited.
#[must_use]
pub fn limits(spec: &PodSpec) -> ResourceList {
    let mut total = aggregate(spec, |resources| read(resources.limits.as_ref()));
    let pod_level = spec.resources.as_ref().map(|resources| read(resources.limits.as_ref())).unwrap_or_default();
    total.extend(pod_level.into_iter().filter(|(name, _)| is_pod_level(name)));
    let overhead = read(spec.overhead.as_ref());
    for (name, quantity) in &mut total {
        if let Some(more) = overhead.get(name) {
            *quantity = quantity.plus(more);
        }
    }
    total
}

/// Resources that `spec.resources` may name.
fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn aggregate(spec: &PodSpec, list: impl Fn(&ResourceRequirements) -> ResourceList) -> ResourceList {
    let of = |container: &Container| container.resources.as_ref().map(&list).unwrap_or_default();
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
        pod_requests(&spec).iter().map(|(name, text)| format!("{name}={} ", text.0)).collect()
    }

    fn container(cpu: &str, memory: &str) -> serde_json::Value {
        serde_json::json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
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
