//! Pods that take more of the node's disk than they may: emptyDirs with a size limit, pods and containers with a limit
//! of `ephemeral-storage`. Pure.

use api::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::Pod;

use super::rank::Used;

const RESOURCE: &str = "ephemeral-storage";

/// Whether a pod has any such limit.
#[must_use]
pub fn is_limited(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let sized = spec.volumes.iter().flatten().filter_map(|volume| volume.empty_dir.as_ref());
    // The kernel keeps the limit of what lies in memory.
    let sized = sized.filter(|source| source.medium.as_deref() != Some("Memory") && source.size_limit.is_some());
    sized.count() > 0 || api::resources::limits(spec).contains_key(RESOURCE) || !container_limits(pod).is_empty()
}

/// What a pod exceeds: the signal, and upstream's words. `separate` says that writable layers lie on a filesystem of their own.
#[must_use]
pub fn exceeded(pod: &Pod, used: &Used, separate: bool) -> Option<(&'static str, String)> {
    let volume = || empty_dir(pod, used).map(|text| ("emptydirfs.limit", text));
    let whole = || whole(pod, used).map(|text| ("ephemeralpodfs.limit", text));
    let container = || container(pod, used, separate).map(|text| ("ephemeralcontainerfs.limit", text));
    volume().or_else(whole).or_else(container)
}

fn empty_dir(pod: &Pod, used: &Used) -> Option<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let limited = volumes.filter_map(|volume| {
        let limit: Quantity = volume.empty_dir.as_ref()?.size_limit.as_ref()?.0.parse().ok()?;
        let held = used.volumes.get(&volume.name)?.bytes;
        (!limit.is_zero() && !limit.is_negative() && bytes(held) > limit).then_some((&volume.name, limit))
    });
    let (name, limit) = limited.into_iter().next()?;
    Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit \"{limit}\". "))
}

fn whole(pod: &Pod, used: &Used) -> Option<String> {
    let limits = api::resources::limits(pod.spec.as_ref()?);
    let limit = limits.get(RESOURCE).filter(|limit| bytes(used.ephemeral.bytes) > **limit)?;
    Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "))
}

fn container(pod: &Pod, used: &Used, separate: bool) -> Option<String> {
    container_limits(pod).into_iter().find_map(|(name, limit)| {
        let of = used.containers.get(name)?;
        let held = of.logs.bytes.saturating_add(if separate { 0 } else { of.rootfs.bytes });
        let exceeded = bytes(held) > limit;
        exceeded.then(|| format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". "))
    })
}

fn container_limits(pod: &Pod) -> Vec<(&str, Quantity)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let limits = containers.filter_map(|container| {
        let limit = container.resources.as_ref()?.limits.as_ref()?.get(RESOURCE)?;
        Some((container.name.as_str(), limit.0.parse::<Quantity>().ok()?))
    });
    limits.filter(|(_, limit)| !limit.is_zero()).collect()
}

fn bytes(count: u64) -> Quantity {
    Quantity::new(i64::try_from(count).unwrap_or(i64::MAX), Format::BinarySi)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::rank::{ContainerUse, Disk};
    use super::*;

    fn pod(spec: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn using(volume: u64, rootfs: u64, logs: u64) -> Used {
        let disk = |bytes| Disk { bytes, inodes: 1 };
        let container = ContainerUse { memory: 0, rootfs: disk(rootfs), logs: disk(logs) };
        Used {
            containers: [("c".to_owned(), container)].into(),
            volumes: [("v".to_owned(), disk(volume))].into(),
            ephemeral: disk(volume + rootfs + logs),
            ..Used::default()
        }
    }

    #[test]
    fn each_limit_has_its_words() {
        let volume = pod(&json!({
            "containers": [{"name": "c"}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Ki"}}]
        }));
        assert!(is_limited(&volume));
        assert_eq!(exceeded(&volume, &using(1024, 0, 0), false), None);
        let text = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Ki\". ";
        assert_eq!(exceeded(&volume, &using(1025, 0, 0), false), Some(("emptydirfs.limit", text.to_owned())));

        let limits = json!({"limits": {"ephemeral-storage": "2Ki"}});
        let limited = pod(&json!({"containers": [{"name": "c", "resources": limits}]}));
        assert!(is_limited(&limited));
        let text = "Pod ephemeral local storage usage exceeds the total limit of containers 2Ki. ";
        assert_eq!(exceeded(&limited, &using(1000, 1000, 100), false), Some(("ephemeralpodfs.limit", text.to_owned())));

        let two = pod(&json!({"containers": [{"name": "c", "resources": limits}, {"name": "d"}]}));
        let text = "Container c exceeded its local ephemeral storage limit \"2Ki\". ";
        let used = using(0, 2000, 100);
        let used = Used { ephemeral: Disk::default(), ..used };
        assert_eq!(exceeded(&two, &used, false), Some(("ephemeralcontainerfs.limit", text.to_owned())));
        assert_eq!(exceeded(&two, &used, true), None, "the layer lies elsewhere");
    }

    #[test]
    fn most_pods_have_no_such_limit() {
        for spec in [
            json!({"containers": [{"name": "c", "resources": {"limits": {"memory": "1Gi"}}}]}),
            json!({"containers": [{"name": "c"}], "volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"containers": [], "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}),
        ] {
            assert!(!is_limited(&pod(&spec)), "{spec}");
        }
    }
}
