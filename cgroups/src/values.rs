//! Kubernetes' resources as cgroup values, and those as file contents. Pure.
//!
//! The rules are the kubelet's (pkg/kubelet/cm/helpers_linux.go, `ResourceConfigForPod`) and, for cpu.weight, the OCI
//! runtimes' (the conversion that opencontainers/cgroups and crun adopted in 2025).

use crate::name::QosLevel;

/// The kernel's least cpu.shares, which Kubernetes gives to those who ask for nothing.
pub const MIN_SHARES: u64 = 2;
/// The kernel's largest cpu.shares.
pub const MAX_SHARES: u64 = 262_144;
/// The least CFS quota, in microseconds.
const MIN_QUOTA: u64 = 1000;
/// The CFS period that Kubernetes uses unless configured, in microseconds.
pub const DEFAULT_PERIOD: u64 = 100_000;

/// A value that can be without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Unlimited,
    At(u64),
}

/// What is set on one cgroup. `None` leaves a value as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Values {
    /// cpu.shares, also where v2's cpu.weight is derived from.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time a period.
    pub cpu_quota: Option<Limit>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Bytes.
    pub memory: Option<Limit>,
    /// Tasks.
    pub pids: Option<Limit>,
}

/// What a pod's cgroup depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodResources {
    pub level: QosLevel,
    /// Millicores.
    pub cpu_request: u64,
    /// Millicores; `None` when any container has no limit (and the pod has none of its own).
    pub cpu_limit: Option<u64>,
    /// Bytes; `None` as above.
    pub memory_limit: Option<u64>,
}

/// The parts of `KubeletConfiguration` that pod cgroups depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// `cpuCFSQuota`.
    pub enforce_cpu_limits: bool,
    /// `cpuCFSQuotaPeriod`, in microseconds.
    pub cpu_period: u64,
    /// `podPidsLimit`; `None` for no limit.
    pub pids_limit: Option<u64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { enforce_cpu_limits: true, cpu_period: DEFAULT_PERIOD, pids_limit: None }
    }
}

/// What pods may use of the node: capacity less reservations, eviction thresholds not taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allocatable {
    /// Millicores.
    pub cpu: u64,
    /// Bytes; `None` when not enforced.
    pub memory: Option<u64>,
    /// Tasks; `None` when not enforced.
    pub pids: Option<u64>,
}

/// Values of a pod's cgroup.
#[must_use]
pub fn pod(resources: &PodResources, policy: &Policy) -> Values {
    let mut values = Values {
        cpu_shares: Some(shares(resources.cpu_request)),
        pids: policy.pids_limit.map(Limit::At),
        ..Values::default()
    };
    if resources.level == QosLevel::BestEffort {
        values.cpu_shares = Some(MIN_SHARES);
        return values;
    }
    if let Some(limit) = resources.cpu_limit {
        let quota = if policy.enforce_cpu_limits { quota(limit, policy.cpu_period) } else { Limit::Unlimited };
        values.cpu_quota = Some(quota);
        values.cpu_period = Some(policy.cpu_period);
    }
    values.memory = resources.memory_limit.map(Limit::At);
    values
}

/// Values of a QoS class' cgroup. `cpu_requests` is the sum over that class' pods, in millicores.
#[must_use]
pub fn qos(level: QosLevel, cpu_requests: u64) -> Values {
    let cpu_shares = match level {
        // Guaranteed pods have no cgroup of their own: node allocatable rules there.
        QosLevel::Guaranteed => None,
        QosLevel::Burstable => Some(shares(cpu_requests)),
        QosLevel::BestEffort => Some(MIN_SHARES),
    };
    Values { cpu_shares, ..Values::default() }
}

/// Values of the cgroup above all pods.
#[must_use]
pub fn node(allocatable: &Allocatable) -> Values {
    Values {
        cpu_shares: Some(shares(allocatable.cpu)),
        memory: allocatable.memory.map(Limit::At),
        pids: allocatable.pids.map(Limit::At),
        ..Values::default()
    }
}

/// Millicores to cpu.shares (`MilliCPUToShares`).
#[must_use]
pub fn shares(milli_cpu: u64) -> u64 {
    (milli_cpu.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// Millicores to a CFS quota in microseconds (`MilliCPUToQuota`); none is no limit.
#[must_use]
pub fn quota(milli_cpu: u64, period: u64) -> Limit {
    if milli_cpu == 0 {
        return Limit::Unlimited;
    }
    Limit::At((milli_cpu.saturating_mul(period) / 1000).max(MIN_QUOTA))
}

/// cpu.shares to cpu.weight: quadratic in the logarithm through (2, 1), (1024, 100) and (262144, 10000).
#[must_use]
pub fn weight(shares: u64) -> u64 {
    if shares <= MIN_SHARES {
        return 1;
    }
    if shares >= MAX_SHARES {
        return 10_000;
    }
    #[allow(clippy::cast_precision_loss)] // below 2^18
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 1 and 10000
    let weight = 10_f64.powf(exponent).ceil() as u64;
    weight
}

/// One file of a cgroup and what is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The v1 hierarchy or v2 controller that must be there.
    pub controller: &'static str,
    pub file: &'static str,
    pub value: String,
}

fn setting(controller: &'static str, file: &'static str, value: impl ToString) -> Setting {
    Setting { controller, file, value: value.to_string() }
}

/// Files of cgroup v1, in the order in which they are written.
#[must_use]
pub fn files_v1(values: &Values) -> Vec<Setting> {
    let signed = |limit: Limit| match limit {
        Limit::Unlimited => "-1".to_owned(),
        Limit::At(value) => value.to_string(),
    };
    let mut out = Vec::new();
    out.extend(values.cpu_shares.map(|v| setting("cpu", "cpu.shares", v)));
    out.extend(values.cpu_period.map(|v| setting("cpu", "cpu.cfs_period_us", v)));
    out.extend(values.cpu_quota.map(|v| setting("cpu", "cpu.cfs_quota_us", signed(v))));
    out.extend(values.memory.map(|v| setting("memory", "memory.limit_in_bytes", signed(v))));
    out.extend(values.pids.map(|v| setting("pids", "pids.max", max(v))));
    out
}

/// Files of cgroup v2, in the order in which they are written.
#[must_use]
pub fn files_v2(values: &Values) -> Vec<Setting> {
    let mut out = Vec::new();
    out.extend(values.cpu_shares.map(|v| setting("cpu", "cpu.weight", weight(v))));
    match (values.cpu_quota, values.cpu_period) {
        (Some(quota), Some(period)) => out.push(setting("cpu", "cpu.max", format!("{} {period}", max(quota)))),
        // The kernel keeps the period that it is not told.
        (Some(quota), None) => out.push(setting("cpu", "cpu.max", max(quota))),
        (None, _) => {}
    }
    if let Some(limit) = values.memory {
        out.push(setting("memory", "memory.max", max(limit)));
        // The containers decide (the runtime sets it there): a pod or a class is never killed as a whole.
        out.push(setting("memory", "memory.oom.group", 0));
    }
    out.extend(values.pids.map(|v| setting("pids", "pids.max", max(v))));
    out
}

fn max(limit: Limit) -> String {
    match limit {
        Limit::Unlimited => "max".to_owned(),
        Limit::At(value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(settings: &[Setting]) -> String {
        settings.iter().map(|s| format!("{}={}", s.file, s.value)).collect::<Vec<_>>().join("; ")
    }

    fn resources(level: QosLevel, request: u64, cpu: Option<u64>, memory: Option<u64>) -> PodResources {
        PodResources { level, cpu_request: request, cpu_limit: cpu, memory_limit: memory }
    }

    #[test]
    fn shares_as_the_kubelet_counts_them() {
        for (milli, expected) in [(0, 2), (1, 2), (2, 2), (10, 10), (100, 102), (1000, 1024), (1_000_000, 262_144)] {
            assert_eq!(shares(milli), expected, "{milli}m");
        }
    }

    #[test]
    fn quota_has_a_floor() {
        assert_eq!(quota(0, 100_000), Limit::Unlimited);
        assert_eq!(quota(5, 100_000), Limit::At(1000));
        assert_eq!(quota(200, 100_000), Limit::At(20_000));
        assert_eq!(quota(1500, 10_000), Limit::At(15_000));
    }

    #[test]
    fn weight_as_the_runtimes_convert_it() {
        for (shares, expected) in [(0, 1), (2, 1), (102, 17), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares} shares");
        }
    }

    #[test]
    fn guaranteed_pod() {
        let values = pod(
            &resources(QosLevel::Guaranteed, 500, Some(500), Some(64 << 20)),
            &Policy { pids_limit: Some(1024), ..Policy::default() },
        );
        assert_eq!(
            golden(&files_v1(&values)),
            "cpu.shares=512; cpu.cfs_period_us=100000; cpu.cfs_quota_us=50000; memory.limit_in_bytes=67108864; pids.max=1024"
        );
        assert_eq!(
            golden(&files_v2(&values)),
            "cpu.weight=59; cpu.max=50000 100000; memory.max=67108864; memory.oom.group=0; pids.max=1024"
        );
    }

    #[test]
    fn burstable_pod_is_limited_only_where_every_container_is() {
        let values = pod(&resources(QosLevel::Burstable, 100, None, Some(1 << 20)), &Policy::default());
        assert_eq!(golden(&files_v1(&values)), "cpu.shares=102; memory.limit_in_bytes=1048576");
        assert_eq!(golden(&files_v2(&values)), "cpu.weight=17; memory.max=1048576; memory.oom.group=0");
    }

    #[test]
    fn best_effort_pod_and_classes() {
        let values = pod(&resources(QosLevel::BestEffort, 0, None, None), &Policy::default());
        assert_eq!(golden(&files_v2(&values)), "cpu.weight=1");
        assert_eq!(golden(&files_v1(&qos(QosLevel::Burstable, 1500))), "cpu.shares=1536");
        assert_eq!(golden(&files_v1(&qos(QosLevel::BestEffort, 1500))), "cpu.shares=2");
        assert_eq!(golden(&files_v1(&qos(QosLevel::Guaranteed, 1500))), "");
    }

    #[test]
    fn cfs_quota_can_be_switched_off() {
        let policy = Policy { enforce_cpu_limits: false, ..Policy::default() };
        let values = pod(&resources(QosLevel::Guaranteed, 500, Some(500), None), &policy);
        assert_eq!(golden(&files_v1(&values)), "cpu.shares=512; cpu.cfs_period_us=100000; cpu.cfs_quota_us=-1");
        assert_eq!(golden(&files_v2(&values)), "cpu.weight=59; cpu.max=max 100000");
    }

    #[test]
    fn node_allocatable() {
        let values = node(&Allocatable { cpu: 2000, memory: Some(8 << 30), pids: Some(30_000) });
        assert_eq!(golden(&files_v1(&values)), "cpu.shares=2048; memory.limit_in_bytes=8589934592; pids.max=30000");
        assert_eq!(
            golden(&files_v2(&values)),
            "cpu.weight=174; memory.max=8589934592; memory.oom.group=0; pids.max=30000"
        );
    }
}
