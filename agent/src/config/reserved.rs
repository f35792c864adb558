//! What a configuration keeps of the node for others than pods.

use std::collections::{BTreeMap, BTreeSet};

use api::quantity::{Format, Quantity};

use super::kubelet::{KubeletConfiguration, MEMORY_QOS, QOS_RESERVED};

/// What can be reserved (`parseResourceList`).
pub const RESOURCES: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pid"];

impl KubeletConfiguration {
    /// An amount of `systemReserved`; `None` where nothing is said of it. `reservedSystemCPUs` stands for the CPU of both lists. Texts were
    /// checked when they were read.
    #[must_use]
    pub fn system_reserved(&self, name: &str) -> Option<Quantity> {
        match cpus(&self.reserved_system_cpus) {
            Ok(cpus) if name == "cpu" && !cpus.is_empty() => {
                Some(Quantity::new(i64::try_from(cpus.len()).unwrap_or(i64::MAX), Format::DecimalSi))
            }
            _ => amount(&self.system_reserved, name),
        }
    }

    /// The same of `kubeReserved`.
    #[must_use]
    pub fn kube_reserved(&self, name: &str) -> Option<Quantity> {
        let is_overwritten = name == "cpu" && cpus(&self.reserved_system_cpus).is_ok_and(|cpus| !cpus.is_empty());
        if is_overwritten { None } else { amount(&self.kube_reserved, name) }
    }

    /// Both together.
    #[must_use]
    pub fn reserved(&self, name: &str) -> Quantity {
        let both = [self.system_reserved(name), self.kube_reserved(name)];
        both.into_iter().flatten().fold(Quantity::ZERO, |sum, amount| sum.plus(&amount))
    }

    /// Whether a part of `enforceNodeAllocatable` is wanted.
    #[must_use]
    pub fn enforces(&self, what: &str) -> bool {
        self.enforce_node_allocatable.iter().any(|wanted| wanted == what)
    }

    /// `qosReserved.memory` in percent, where its feature gate is on.
    #[must_use]
    pub fn memory_reserve(&self) -> Option<u64> {
        let text = self.qos_reserved.get("memory").filter(|_| self.gate(QOS_RESERVED))?;
        percentage(text).ok()
    }
}

/// Warnings of what is configured and cannot be: the kernel or a feature gate is against it.
#[must_use]
pub fn without_effect(config: &KubeletConfiguration, cgroup_v2: bool) -> Vec<String> {
    let memory = (config.gate(MEMORY_QOS) && !cgroup_v2).then(|| {
        format!("feature gate {MEMORY_QOS:?} of KubeletConfiguration has no effect here: cgroups are of version 1")
    });
    let classes = (!config.qos_reserved.is_empty() && !config.gate(QOS_RESERVED)).then(|| {
        format!(
            "field \"qosReserved\" of KubeletConfiguration has no effect here: feature gate {QOS_RESERVED:?} is off"
        )
    });
    memory.into_iter().chain(classes).collect()
}

fn amount(list: &BTreeMap<String, String>, name: &str) -> Option<Quantity> {
    list.get(name)?.parse().ok()
}

/// Reads a list of CPUs as the kernel and `reservedSystemCPUs` have it: `0-1,3`; nothing is none.
///
/// # Errors
/// What is wrong with it, in Go's words.
pub fn cpus(list: &str) -> Result<BTreeSet<u32>, String> {
    let number =
        |text: &str| text.parse::<u32>().map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"));
    let mut found = BTreeSet::new();
    for range in list.split(',').filter(|_| !list.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("invalid range {range:?} ({first} > {last})"));
        }
        // The kernel counts CPUs up to 8192.
        found.extend(first..=last.min(first.saturating_add(1 << 16)));
    }
    Ok(found)
}

/// Reads a percentage (`parsePercentage`).
///
/// # Errors
/// What is wrong with it, in upstream's words.
pub fn percentage(text: &str) -> Result<u64, String> {
    let Some(number) = text.strip_suffix('%') else { return Err(format!("percentage expected, got '{text}'")) };
    let number: i64 = number.parse().map_err(|_| format!("invalid number in percentage '{text}'"))?;
    u64::try_from(number)
        .ok()
        .filter(|percent| *percent <= 100)
        .ok_or("percentage must be between 0 and 100".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_cpus_stand_for_the_cpu_of_both_lists() {
        let list = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut config = KubeletConfiguration {
            system_reserved: list(&[("cpu", "100m"), ("memory", "1Gi")]),
            kube_reserved: list(&[("cpu", "200m")]),
            ..KubeletConfiguration::default()
        };
        assert_eq!(config.reserved("cpu").milli_value(), 300);
        config.reserved_system_cpus = "0-1,3".into();
        assert_eq!(config.reserved("cpu").milli_value(), 3000);
        assert_eq!(config.kube_reserved("cpu"), None);
        assert_eq!(config.reserved("memory").value(), 1 << 30);
        assert_eq!(config.system_reserved("pid"), None);
    }

    #[test]
    fn lists_of_cpus() {
        let read = |text: &str| cpus(text).map(|cpus| cpus.into_iter().collect::<Vec<_>>());
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(read("2,0-1,1"), Ok(vec![0, 1, 2]));
        assert_eq!(read("a"), Err("strconv.Atoi: parsing \"a\": invalid syntax".into()));
        assert_eq!(read("1,"), Err("strconv.Atoi: parsing \"\": invalid syntax".into()));
        assert_eq!(read("3-1"), Err("invalid range \"3-1\" (3 > 1)".into()));
    }

    #[test]
    fn what_is_kept_from_lower_classes_needs_its_gate() {
        let mut config = KubeletConfiguration {
            qos_reserved: [("memory".to_owned(), "50%".to_owned())].into(),
            ..KubeletConfiguration::default()
        };
        assert_eq!(config.memory_reserve(), None);
        assert!(without_effect(&config, true)[0].ends_with("feature gate \"QOSReserved\" is off"));
        config.feature_gates.insert("QOSReserved".into(), true);
        assert_eq!(config.memory_reserve(), Some(50));
        config.feature_gates = [("AllAlpha".to_owned(), true)].into();
        assert_eq!(without_effect(&config, true), [""; 0]);
        assert!(without_effect(&config, false)[0].starts_with("feature gate \"MemoryQoS\""));
        assert_eq!(config.memory_reserve(), Some(50));
        assert_eq!(percentage("50"), Err("percentage expected, got '50'".into()));
        assert_eq!(percentage("x%"), Err("invalid number in percentage 'x%'".into()));
        assert_eq!(percentage("101%"), Err("percentage must be between 0 and 100".into()));
    }
}
