//! Capacity and allocatable (<https://kubernetes.io/docs/tasks/administer-cluster/reserve-compute-resources/>).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::facts::{Facts, Filesystem};
use super::quantity::{binary, decimal, parse_milli};
use crate::config::KubeletConfiguration;

/// A resource list as the API has it.
pub type ResourceList = BTreeMap<String, Quantity>;

/// What the machine has and what of it pods may use.
#[derive(Debug, Clone, PartialEq)]
pub struct Resources {
    /// `status.capacity`.
    pub capacity: ResourceList,
    /// `status.allocatable`.
    pub allocatable: ResourceList,
}

/// Computes both lists. `disk` is the filesystem that holds the data folder.
#[must_use]
pub fn resources(facts: &Facts, disk: Option<Filesystem>, config: &KubeletConfiguration) -> Resources {
    let reserved = |name: &str| {
        let of = |list: &BTreeMap<String, String>| list.get(name).and_then(|q| parse_milli(q)).unwrap_or(0);
        of(&config.system_reserved).saturating_add(of(&config.kube_reserved))
    };
    let mut capacity = ResourceList::new();
    let mut allocatable = ResourceList::new();
    let mut put = |name: &str, has: String, leaves: String| {
        capacity.insert(name.to_owned(), Quantity(has));
        allocatable.insert(name.to_owned(), Quantity(leaves));
    };

    let millis = u128::from(facts.cpus) * 1000;
    let cpu = millis.saturating_sub(reserved("cpu"));
    put("cpu", facts.cpus.to_string(), if cpu % 1000 == 0 { (cpu / 1000).to_string() } else { format!("{cpu}m") });

    let kept = whole(reserved("memory")).saturating_add(threshold(config, "memory.available", facts.memory));
    let pages: u64 = facts.hugepages.iter().map(|(_, bytes)| *bytes).sum();
    let memory = facts.memory.saturating_sub(kept).saturating_sub(pages);
    put("memory", binary(facts.memory), binary(memory));

    if let Some(disk) = disk {
        let kept = whole(reserved("ephemeral-storage")).saturating_add(threshold(config, "nodefs.available", disk.capacity));
        put("ephemeral-storage", binary(disk.capacity), decimal(disk.capacity.saturating_sub(kept)));
    }
    for (kib, bytes) in &facts.hugepages {
        put(&format!("hugepages-{}", binary(kib.saturating_mul(1024))), binary(*bytes), binary(*bytes));
    }
    let pods = pods(facts.cpus, config).to_string();
    put("pods", pods.clone(), pods);
    Resources { capacity, allocatable }
}

fn pods(cpus: u64, config: &KubeletConfiguration) -> u64 {
    let max = u64::try_from(config.max_pods).unwrap_or(0);
    match u64::try_from(config.pods_per_core) {
        Ok(per_core) if per_core > 0 => max.min(per_core.saturating_mul(cpus)),
        _ => max,
    }
}

/// Thousandths to whole units, rounded up.
fn whole(millis: u128) -> u64 {
    u64::try_from(millis.div_ceil(1000)).unwrap_or(u64::MAX)
}

/// A hard eviction threshold in units: a quantity, or a percentage of `capacity`.
#[must_use]
pub fn threshold(config: &KubeletConfiguration, signal: &str, capacity: u64) -> u64 {
    let Some(text) = config.eviction_hard.get(signal) else { return 0 };
    match text.strip_suffix('%') {
        // Upstream computes with float32; whole percentages are the same.
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
        Some(percent) => percent.parse::<f64>().map_or(0, |p| (capacity as f64 * p.clamp(0.0, 100.0) / 100.0) as u64),
        None => parse_milli(text).map_or(0, whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts { cpus: 2, memory: 24_683_704 * 1024, hugepages: vec![(2048, 0), (1_048_576, 0)], ..Facts::default() }
    }

    fn get<'a>(list: &'a ResourceList, name: &str) -> &'a str {
        &list[name].0
    }

    #[test]
    fn defaults_keep_the_eviction_thresholds() {
        let disk = Filesystem { capacity: 61_255_492 * 1024, ..Filesystem::default() };
        let resources = resources(&facts(), Some(disk), &KubeletConfiguration::default());
        assert_eq!(get(&resources.capacity, "cpu"), "2");
        assert_eq!(get(&resources.capacity, "memory"), "24683704Ki");
        assert_eq!(get(&resources.allocatable, "memory"), "24581304Ki");
        assert_eq!(get(&resources.capacity, "ephemeral-storage"), "61255492Ki");
        assert_eq!(get(&resources.allocatable, "ephemeral-storage"), "56453061428");
        assert_eq!(get(&resources.capacity, "hugepages-2Mi"), "0");
        assert_eq!(get(&resources.capacity, "hugepages-1Gi"), "0");
        assert_eq!(get(&resources.allocatable, "pods"), "110");
    }

    #[test]
    fn reservations_are_subtracted() {
        let config = KubeletConfiguration {
            system_reserved: [("cpu".into(), "100m".into()), ("memory".into(), "1Gi".into())].into(),
            kube_reserved: [("cpu".into(), "0.2".into())].into(),
            eviction_hard: [("memory.available".into(), "10%".into())].into(),
            pods_per_core: 10,
            ..KubeletConfiguration::default()
        };
        let facts = Facts { cpus: 2, memory: 10 << 30, ..Facts::default() };
        let resources = resources(&facts, None, &config);
        assert_eq!(get(&resources.allocatable, "cpu"), "1700m");
        assert_eq!(get(&resources.allocatable, "memory"), "8Gi");
        assert_eq!(get(&resources.allocatable, "pods"), "20");
        assert!(!resources.capacity.contains_key("ephemeral-storage"));
    }
}
