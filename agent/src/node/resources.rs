//! Capacity and allocatable (<https://kubernetes.io/docs/tasks/administer-cluster/reserve-compute-resources/>).

use std::collections::BTreeMap;

use api::quantity::{Format, Quantity as Amount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::facts::{Facts, Filesystem};
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
    let mut lists = Resources { capacity: ResourceList::new(), allocatable: ResourceList::new() };

    let cpu = Amount::new(signed(facts.cpus), Format::DecimalSi);
    lists.put("cpu", cpu, cpu.minus(&config.reserved("cpu")));

    let memory = bytes(facts.memory);
    let pages: u64 = facts.hugepages.iter().map(|(_, bytes)| *bytes).sum();
    let kept = config.reserved("memory").plus(&bytes(threshold(config, "memory.available", facts.memory)));
    lists.put("memory", memory, memory.minus(&kept).minus(&bytes(pages)));

    if let Some(disk) = disk {
        let kept = config.reserved("ephemeral-storage").value().max(0);
        let kept = kept.saturating_add(signed(threshold(config, "nodefs.available", disk.capacity)));
        // Upstream computes this one in decimal.
        let left = Amount::new(signed(disk.capacity).saturating_sub(kept), Format::DecimalSi);
        lists.put("ephemeral-storage", bytes(disk.capacity), left);
    }
    for (kib, size) in &facts.hugepages {
        lists.put(&format!("hugepages-{}", bytes(kib.saturating_mul(1024))), bytes(*size), bytes(*size));
    }
    let pods = Amount::new(pods(facts.cpus, config), Format::DecimalSi);
    lists.put("pods", pods, pods);
    lists
}

/// Whether the machine has what is kept from pods (`validateNodeAllocatable`).
///
/// # Errors
/// All that it has not.
pub fn check(facts: &Facts, disk: Option<Filesystem>, config: &KubeletConfiguration) -> Result<(), String> {
    let kept = |name: &str, signal: Option<&str>, has: &Amount| {
        let capacity = u64::try_from(has.value()).unwrap_or(0);
        config.reserved(name).plus(&bytes(signal.map_or(0, |signal| threshold(config, signal, capacity))))
    };
    let disk = disk.filter(|_| config.local_storage_capacity_isolation).map(|disk| bytes(disk.capacity));
    let resources = [
        ("cpu", None, Some(Amount::new(signed(facts.cpus), Format::DecimalSi))),
        ("memory", Some("memory.available"), Some(bytes(facts.memory))),
        ("ephemeral-storage", Some("nodefs.available"), disk),
    ];
    let mut wrong = Vec::new();
    for (name, signal, has) in resources {
        let Some(has) = has else { continue };
        let kept = kept(name, signal, &has);
        if has.minus(&kept).is_negative() {
            wrong.push(format!(
                "Resource {name:?} has a reservation of {kept} but capacity of {has}. Expected capacity >= reservation."
            ));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("invalid Node Allocatable configuration. {}", wrong.join(" "))) }
}

impl Resources {
    fn put(&mut self, name: &str, has: Amount, leaves: Amount) {
        let leaves = if leaves.is_negative() { Amount::new(0, leaves.format()) } else { leaves };
        self.capacity.insert(name.to_owned(), has.to_text());
        self.allocatable.insert(name.to_owned(), leaves.to_text());
    }
}

fn bytes(count: u64) -> Amount {
    Amount::new(signed(count), Format::BinarySi)
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn pods(cpus: u64, config: &KubeletConfiguration) -> i64 {
    let max = i64::from(config.max_pods);
    match i64::from(config.pods_per_core) {
        0 => max,
        per_core => max.min(per_core.saturating_mul(signed(cpus))),
    }
}

/// A hard eviction threshold in units: a quantity, or a percentage of `capacity`.
#[must_use]
pub fn threshold(config: &KubeletConfiguration, signal: &str, capacity: u64) -> u64 {
    let Some(text) = config.eviction_hard.get(signal) else { return 0 };
    match text.strip_suffix('%') {
        // Upstream computes with float32; whole percentages are the same.
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
        Some(percent) => percent.parse::<f64>().map_or(0, |p| (capacity as f64 * p.clamp(0.0, 100.0) / 100.0) as u64),
        None => text.parse::<Amount>().map_or(0, |q| u64::try_from(q.value()).unwrap_or(0)),
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
        let cpus = KubeletConfiguration { reserved_system_cpus: "1".into(), ..config };
        assert_eq!(get(&super::resources(&facts, None, &cpus).allocatable, "cpu"), "1", "in place of what lists say");
    }

    #[test]
    fn no_more_is_reserved_than_there_is() {
        let disk = Some(Filesystem { capacity: 10 << 30, ..Filesystem::default() });
        let mut config = KubeletConfiguration::default();
        assert_eq!(check(&facts(), disk, &config), Ok(()));
        config.system_reserved = [("cpu".into(), "1500m".into()), ("memory".into(), "23Gi".into())].into();
        config.kube_reserved = [("cpu".into(), "1".into()), ("memory".into(), "1Gi".into())].into();
        assert_eq!(
            check(&facts(), disk, &config).unwrap_err(),
            "invalid Node Allocatable configuration. Resource \"cpu\" has a reservation of 2500m but capacity of 2. Expected capacity >= reservation. \
             Resource \"memory\" has a reservation of 24676Mi but capacity of 24683704Ki. Expected capacity >= reservation."
        );
    }
}
