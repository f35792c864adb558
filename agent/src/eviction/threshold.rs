//! What is watched and from where on pods are evicted (pkg/kubelet/eviction/helpers.go, `ParseThresholdConfig`). Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use api::quantity::{Format, Quantity};

use crate::config::{KubeletConfiguration, duration};

/// What can run short. The order is the one in which shortages are dealt with: memory first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// `memory.available`
    Memory,
    /// `allocatableMemory.available`: what the cgroup of all pods has left.
    AllocatableMemory,
    /// `nodefs.available`
    NodeFs,
    /// `nodefs.inodesFree`
    NodeFsInodes,
    /// `imagefs.available`
    ImageFs,
    /// `imagefs.inodesFree`
    ImageFsInodes,
    /// `containerfs.available`
    ContainerFs,
    /// `containerfs.inodesFree`
    ContainerFsInodes,
    /// `pid.available`
    Pid,
}

/// The condition that a node is in while something runs short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pressure {
    Memory,
    Disk,
    Pid,
}

impl Pressure {
    /// The type of the node's condition.
    #[must_use]
    pub fn condition(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pid => "PIDPressure",
        }
    }
}

impl Signal {
    /// All but [`Self::AllocatableMemory`], which no configuration names.
    const NAMED: [(Self, &'static str); 8] = [
        (Self::Memory, "memory.available"),
        (Self::NodeFs, "nodefs.available"),
        (Self::NodeFsInodes, "nodefs.inodesFree"),
        (Self::ImageFs, "imagefs.available"),
        (Self::ImageFsInodes, "imagefs.inodesFree"),
        (Self::ContainerFs, "containerfs.available"),
        (Self::ContainerFsInodes, "containerfs.inodesFree"),
        (Self::Pid, "pid.available"),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::NAMED.into_iter().find(|(_, known)| *known == name).map(|(signal, _)| signal)
    }

    /// Its name in configurations.
    #[must_use]
    pub fn name(self) -> &'static str {
        let named = Self::NAMED.into_iter().find(|(signal, _)| *signal == self);
        named.map_or("allocatableMemory.available", |(_, name)| name)
    }

    /// What is to be reclaimed.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::Memory | Self::AllocatableMemory => "memory",
            Self::NodeFs | Self::ImageFs | Self::ContainerFs => "ephemeral-storage",
            Self::NodeFsInodes | Self::ImageFsInodes | Self::ContainerFsInodes => "inodes",
            Self::Pid => "pids",
        }
    }

    #[must_use]
    pub fn pressure(self) -> Pressure {
        match self {
            Self::Memory | Self::AllocatableMemory => Pressure::Memory,
            Self::Pid => Pressure::Pid,
            _ => Pressure::Disk,
        }
    }

    fn format(self) -> Format {
        match self.resource() {
            "memory" | "ephemeral-storage" => Format::BinarySi,
            _ => Format::DecimalSi,
        }
    }

    /// A count of what the signal is about.
    #[must_use]
    pub fn quantity(self, count: u64) -> Quantity {
        Quantity::new(i64::try_from(count).unwrap_or(i64::MAX), self.format())
    }
}

/// How much: a quantity, or a part of what there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    Quantity(Quantity),
    /// Between 0 and 1.
    Part(f64),
}

impl Amount {
    /// Of a capacity.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    pub fn of(&self, capacity: u64) -> Quantity {
        match self {
            Self::Quantity(quantity) => *quantity,
            Self::Part(part) => Quantity::new((capacity as f64 * part) as i64, Format::BinarySi),
        }
    }
}

/// From where on pods are evicted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    /// Less than this is too little.
    pub value: Amount,
    /// How long it may be too little; zero for a hard threshold.
    pub grace: Duration,
    /// How much more than the threshold there must be before the shortage is over.
    pub min_reclaim: Option<Amount>,
}

impl Threshold {
    #[must_use]
    pub fn is_hard(&self) -> bool {
        self.grace.is_zero()
    }
}

/// A part of the configuration that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field}: {message}")]
pub struct Invalid {
    /// `evictionHard` and its like.
    pub field: &'static str,
    pub message: String,
}

/// The thresholds of a configuration, in the order of their signals.
///
/// # Errors
/// The field that is wrong.
pub fn parse(config: &KubeletConfiguration) -> Result<Vec<Threshold>, Invalid> {
    let hard = statements("evictionHard", &config.eviction_hard)?;
    let soft = statements("evictionSoft", &config.eviction_soft)?;
    let graces = graces(&config.eviction_soft_grace_period)?;
    let reclaims = reclaims(&config.eviction_minimum_reclaim)?;
    let mut all = Vec::new();
    for (signal, value) in hard {
        all.push(Threshold { signal, value, grace: Duration::ZERO, min_reclaim: reclaims.get(&signal).copied() });
    }
    for (signal, value) in soft {
        let missing = || Invalid {
            field: "evictionSoft",
            message: format!("grace period must be specified for the soft eviction threshold {}", signal.name()),
        };
        let grace = *graces.get(&signal).ok_or_else(missing)?;
        all.push(Threshold { signal, value, grace, min_reclaim: reclaims.get(&signal).copied() });
    }
    if config.enforce_node_allocatable.iter().any(|what| what == "pods") {
        let memory = all.iter().find(|threshold| threshold.signal == Signal::Memory && threshold.is_hard()).copied();
        all.extend(memory.map(|memory| Threshold { signal: Signal::AllocatableMemory, ..memory }));
    }
    all.sort_by_key(|threshold| threshold.signal);
    Ok(all)
}

fn signal(field: &'static str, name: &str) -> Result<Signal, Invalid> {
    Signal::named(name).ok_or_else(|| Invalid { field, message: format!("unsupported eviction signal {name}") })
}

fn statements(field: &'static str, texts: &BTreeMap<String, String>) -> Result<BTreeMap<Signal, Amount>, Invalid> {
    let mut all = BTreeMap::new();
    for (name, text) in texts {
        let signal = signal(field, name)?;
        let invalid = |message: String| Invalid { field, message };
        let amount = match text.strip_suffix('%') {
            // Nothing and everything are no thresholds.
            Some("0" | "100") => continue,
            Some(percent) => {
                let value: f64 = percent.parse().map_err(|_| invalid(format!("{name}: {text:?} is no percentage")))?;
                if value < 0.0 {
                    return Err(invalid(format!("eviction percentage threshold {name} must be >= 0%: {text}")));
                }
                if value > 100.0 {
                    return Err(invalid(format!("eviction percentage threshold {name} must be <= 100%: {text}")));
                }
                Amount::Part(value / 100.0)
            }
            None => {
                let value: Quantity = text.parse().map_err(|_| invalid(format!("{name}: {text:?} is no quantity")))?;
                if value.is_negative() || value.is_zero() {
                    return Err(invalid(format!("eviction threshold {name} must be positive: {text}")));
                }
                Amount::Quantity(value)
            }
        };
        all.insert(signal, amount);
    }
    Ok(all)
}

fn graces(texts: &BTreeMap<String, String>) -> Result<BTreeMap<Signal, Duration>, Invalid> {
    let field = "evictionSoftGracePeriod";
    let mut all = BTreeMap::new();
    for (name, text) in texts {
        let message = || format!("invalid eviction grace period specified: {text}, must be a positive value");
        let grace = duration::parse(text).ok_or_else(|| Invalid { field, message: message() })?;
        all.insert(signal(field, name)?, grace);
    }
    Ok(all)
}

fn reclaims(texts: &BTreeMap<String, String>) -> Result<BTreeMap<Signal, Amount>, Invalid> {
    let field = "evictionMinimumReclaim";
    let mut all = BTreeMap::new();
    for (name, text) in texts {
        let invalid = |message: String| Invalid { field, message };
        let amount = match text.strip_suffix('%') {
            Some(percent) => {
                let value: f64 = percent.parse().map_err(|_| invalid(format!("{name}: {text:?} is no percentage")))?;
                if value <= 0.0 {
                    let message = format!("eviction percentage minimum reclaim {name} must be positive: {text}");
                    return Err(invalid(message));
                }
                Amount::Part(value / 100.0)
            }
            None => {
                let value: Quantity = text.parse().map_err(|_| invalid(format!("{name}: {text:?} is no quantity")))?;
                if value.is_negative() {
                    return Err(invalid(format!("negative eviction minimum reclaim specified for {name}")));
                }
                Amount::Quantity(value)
            }
        };
        all.insert(signal(field, name)?, amount);
    }
    Ok(all)
}

/// Where images and writable layers lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disks {
    /// With the agent's folder.
    One,
    /// Both on a filesystem of their own.
    ImageFs,
    /// Images on a filesystem of their own, writable layers with the agent's folder.
    Split,
}

/// The thresholds of `containerfs` are those of the filesystem that it is on, whatever the configuration says of it.
#[must_use]
pub fn with_container_fs(thresholds: &[Threshold], disks: Disks) -> Vec<Threshold> {
    let of = |signal: Signal| match (signal, disks) {
        (Signal::ImageFs, Disks::ImageFs) | (Signal::NodeFs, Disks::One | Disks::Split) => Some(Signal::ContainerFs),
        (Signal::ImageFsInodes, Disks::ImageFs) | (Signal::NodeFsInodes, Disks::One | Disks::Split) => {
            Some(Signal::ContainerFsInodes)
        }
        _ => None,
    };
    let own = |threshold: &&Threshold| !matches!(threshold.signal, Signal::ContainerFs | Signal::ContainerFsInodes);
    let mut all: Vec<Threshold> = thresholds.iter().filter(own).copied().collect();
    let copies =
        thresholds.iter().filter_map(|threshold| Some(Threshold { signal: of(threshold.signal)?, ..*threshold }));
    all.extend(copies);
    all.sort_by_key(|threshold| threshold.signal);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut KubeletConfiguration)) -> KubeletConfiguration {
        let mut config = KubeletConfiguration::default();
        change(&mut config);
        config
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_defaults_are_five_hard_thresholds_and_that_of_all_pods() {
        let all = parse(&KubeletConfiguration::default()).unwrap();
        let names: Vec<_> = all.iter().map(|threshold| threshold.signal.name()).collect();
        assert_eq!(
            names,
            [
                "memory.available",
                "allocatableMemory.available",
                "nodefs.available",
                "nodefs.inodesFree",
                "imagefs.available",
                "imagefs.inodesFree",
            ]
        );
        assert!(all.iter().all(Threshold::is_hard));
        assert_eq!(all[0].value.of(1 << 30).to_string(), "100Mi");
        assert_eq!(all[2].value.of(1000).to_string(), "100");
    }

    #[test]
    fn soft_thresholds_have_a_grace_period_and_any_may_have_a_minimum() {
        let config = config(|config| {
            config.eviction_hard = map(&[("pid.available", "10%"), ("nodefs.available", "0%")]);
            config.eviction_soft = map(&[("memory.available", "1Gi")]);
            config.eviction_soft_grace_period = map(&[("memory.available", "1m30s")]);
            config.eviction_minimum_reclaim = map(&[("memory.available", "500Mi")]);
        });
        let all = parse(&config).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].signal, all[0].grace), (Signal::Memory, Duration::from_secs(90)));
        assert_eq!(all[0].min_reclaim.unwrap().of(0).to_string(), "500Mi");
        assert_eq!((all[1].signal, all[1].is_hard()), (Signal::Pid, true));
    }

    #[test]
    fn what_is_wrong_is_said_in_upstreams_words() {
        let hard = |name: &str, value: &str| parse(&config(|c| c.eviction_hard = map(&[(name, value)]))).unwrap_err();
        assert_eq!(hard("cpu.available", "1").message, "unsupported eviction signal cpu.available");
        let message = hard("memory.available", "101%").message;
        assert_eq!(message, "eviction percentage threshold memory.available must be <= 100%: 101%");
        assert_eq!(hard("memory.available", "0").message, "eviction threshold memory.available must be positive: 0");
        let soft = parse(&config(|c| c.eviction_soft = map(&[("nodefs.available", "1Gi")]))).unwrap_err();
        assert_eq!(soft.message, "grace period must be specified for the soft eviction threshold nodefs.available");
        let reclaim = parse(&config(|c| c.eviction_minimum_reclaim = map(&[("nodefs.available", "-1")]))).unwrap_err();
        assert_eq!(reclaim.field, "evictionMinimumReclaim");
    }

    #[test]
    fn container_filesystems_follow_the_one_that_they_are_on() {
        let thresholds = parse(&KubeletConfiguration::default()).unwrap();
        let value = |disks| {
            let all = with_container_fs(&thresholds, disks);
            let found = all.iter().find(|threshold| threshold.signal == Signal::ContainerFs).unwrap();
            found.value.of(100).value()
        };
        assert_eq!((value(Disks::One), value(Disks::ImageFs), value(Disks::Split)), (10, 15, 10));
    }
}
