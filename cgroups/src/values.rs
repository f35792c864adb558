//! Kubernetes' resources as cgroup values, and those as file contents. Pure.
//!
//! The rules are the kubelet's (pkg/kubelet/cm/helpers_linux.go, `ResourceConfigForPod`) and, for cpu.weight, the OCI
//! runtimes' (the conversion that opencontainers/cgroups and crun adopted in 2025).

use std::borrow::Cow;

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

/// A limit of huge pages of one size; both in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HugePages {
    pub size: u64,
    pub limit: u64,
}

/// What is set on one cgroup. `None` leaves a value as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Values {
    /// cpu.shares, also where v2's cpu.weight is derived from.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time a period.
    pub cpu_quota: Option<Limit>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Bytes.
    pub memory: Option<Limit>,
    /// Bytes that the kernel never reclaims. v2 only, as the next.
    pub memory_min: Option<u64>,
    /// Bytes that it reclaims last.
    pub memory_low: Option<u64>,
    /// Tasks.
    pub pids: Option<Limit>,
    /// Pages of sizes that are not named stay as they are.
    pub huge_pages: Vec<HugePages>,
}

/// What a pod's cgroup depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodResources {
    pub level: QosLevel,
    /// Millicores.
    pub cpu_request: u64,
    /// Millicores; `None` when any container has no limit (and the pod has none of its own).
    pub cpu_limit: Option<u64>,
    /// Bytes.
    pub memory_request: u64,
    /// Bytes; `None` as above.
    pub memory_limit: Option<u64>,
    /// Of every size that the machine has.
    pub huge_pages: Vec<HugePages>,
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
    /// `memoryReservationPolicy: TieredReservation` (KEP-2570).
    pub protects_memory: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { enforce_cpu_limits: true, cpu_period: DEFAULT_PERIOD, pids_limit: None, protects_memory: false }
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

/// What is kept of the node for the system, or for Kubernetes. `None` where nothing is said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reservation {
    /// Millicores.
    pub cpu: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Tasks.
    pub pids: Option<u64>,
}

/// What the pods of the classes ask for together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// Millicores of Burstable pods.
    pub burstable_cpu: u64,
    /// Bytes of theirs.
    pub burstable_memory: u64,
    /// Bytes of Guaranteed pods.
    pub guaranteed_memory: u64,
}

/// The parts of `KubeletConfiguration` that the memory of classes depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClassPolicy {
    /// Whether the memory that is asked for is protected; `None` without the feature gate `MemoryQoS`: then nothing is written.
    pub protects_memory: Option<bool>,
    /// `qosReserved`, with the feature gate of that name.
    pub reserves: Option<MemoryReserve>,
}

/// `qosReserved.memory`: what a class asked for is kept from those below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryReserve {
    /// How much of it.
    pub percent: u64,
    /// Bytes that all pods may use.
    pub allocatable: u64,
}

/// Values of a pod's cgroup.
#[must_use]
pub fn pod(resources: &PodResources, policy: &Policy) -> Values {
    let mut values = Values {
        cpu_shares: Some(shares(resources.cpu_request)),
        pids: policy.pids_limit.map(Limit::At),
        huge_pages: resources.huge_pages.clone(),
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
    let protected = Some(resources.memory_request).filter(|bytes| policy.protects_memory && *bytes > 0);
    match resources.level {
        QosLevel::Guaranteed => values.memory_min = protected,
        _ => values.memory_low = protected,
    }
    values
}

/// Values of a QoS class' cgroup, of which Guaranteed pods' is the one above all pods (`UpdateCgroups`).
#[must_use]
pub fn class(level: QosLevel, requests: &Requests, policy: &ClassPolicy) -> Values {
    let (guaranteed, burstable) = (requests.guaranteed_memory, requests.burstable_memory);
    let protected = |bytes: u64| policy.protects_memory.map(|protects| if protects { bytes } else { 0 });
    let left = |to_keep: &[u64]| {
        let reserve = policy.reserves.as_ref()?;
        let kept = to_keep.iter().map(|bytes| bytes.saturating_mul(reserve.percent) / 100).fold(0, u64::saturating_add);
        // As a kubelet's, whose zero means that nothing is said.
        Some(reserve.allocatable.saturating_sub(kept)).filter(|bytes| *bytes > 0).map(Limit::At)
    };
    match level {
        QosLevel::Guaranteed => {
            // What is protected of children counts as far as their parent's is.
            Values { memory_min: protected(guaranteed.saturating_add(burstable)), ..Values::default() }
        }
        QosLevel::Burstable => Values {
            cpu_shares: Some(shares(requests.burstable_cpu)),
            memory: left(&[guaranteed]),
            memory_low: protected(burstable),
            ..Values::default()
        },
        QosLevel::BestEffort => {
            Values { cpu_shares: Some(MIN_SHARES), memory: left(&[guaranteed, burstable]), ..Values::default() }
        }
    }
}

/// Values of a cgroup of the system's, or of Kubernetes' own parts. `compressible`: only what can be taken away again is limited. A memory
/// that is limited is also `protected` where that is asked for.
#[must_use]
pub fn reserved(amounts: &Reservation, compressible: bool, protected: bool) -> Values {
    let memory = amounts.memory.filter(|_| !compressible);
    Values {
        cpu_shares: amounts.cpu.map(shares),
        memory: memory.map(Limit::At),
        memory_min: memory.filter(|_| protected),
        pids: amounts.pids.filter(|_| !compressible).map(Limit::At),
        ..Values::default()
    }
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

/// How the kernel writes a size of huge pages: `2MB` for Kubernetes' `2Mi`.
#[must_use]
pub fn page_size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 30 => format!("{}GB", bytes >> 30),
        _ if bytes >= 1 << 20 => format!("{}MB", bytes >> 20),
        _ => format!("{}KB", bytes >> 10),
    }
}

/// One file of a cgroup and what is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The v1 hierarchy or v2 controller that must be there.
    pub controller: &'static str,
    pub file: Cow<'static, str>,
    pub value: String,
    /// Written only where there is such a file: not every kernel has it.
    pub optional: bool,
}

fn setting(controller: &'static str, file: &'static str, value: impl ToString) -> Setting {
    Setting { controller, file: file.into(), value: value.to_string(), optional: false }
}

/// Limits of pages that are used, and of those that are reserved (Linux 5.7), which fail before they are used.
fn huge_pages(values: &Values, limit: &'static str) -> impl Iterator<Item = Setting> {
    values.huge_pages.iter().flat_map(move |pages| {
        ["", "rsvd."].map(|kind| Setting {
            controller: "hugetlb",
            file: format!("hugetlb.{}.{kind}{limit}", page_size(pages.size)).into(),
            value: pages.limit.to_string(),
            optional: true,
        })
    })
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
    out.extend(huge_pages(values, "limit_in_bytes"));
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
    out.extend(values.memory_min.map(|v| setting("memory", "memory.min", v)));
    out.extend(values.memory_low.map(|v| setting("memory", "memory.low", v)));
    out.extend(values.pids.map(|v| setting("pids", "pids.max", max(v))));
    out.extend(huge_pages(values, "max"));
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
        PodResources {
            level,
            cpu_request: request,
            cpu_limit: cpu,
            memory_request: memory.unwrap_or(0),
            memory_limit: memory,
            huge_pages: Vec::new(),
        }
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
        let requests = Requests { burstable_cpu: 1500, burstable_memory: 300, guaranteed_memory: 500 };
        let class = |level, policy: &ClassPolicy| golden(&files_v2(&class(level, &requests, policy)));
        let plain = QosLevel::ALL.map(|level| class(level, &ClassPolicy::default()));
        assert_eq!(plain, ["", "cpu.weight=138", "cpu.weight=1"]);
        let policy = |protects| ClassPolicy { protects_memory: Some(protects), reserves: None };
        let tiered = QosLevel::ALL.map(|level| class(level, &policy(true)));
        assert_eq!(tiered, ["memory.min=800", "cpu.weight=138; memory.low=300", "cpu.weight=1"]);
        let none = QosLevel::ALL.map(|level| class(level, &policy(false)));
        assert_eq!(none, ["memory.min=0", "cpu.weight=138; memory.low=0", "cpu.weight=1"]);
    }

    #[test]
    fn classes_leave_those_above_them_what_they_ask_for() {
        let requests = Requests { burstable_memory: 300, guaranteed_memory: 500, ..Requests::default() };
        let limits = |percent| {
            let policy =
                ClassPolicy { reserves: Some(MemoryReserve { percent, allocatable: 800 }), ..ClassPolicy::default() };
            QosLevel::ALL.map(|level| class(level, &requests, &policy).memory)
        };
        assert_eq!(limits(50), [None, Some(Limit::At(550)), Some(Limit::At(400))]);
        assert_eq!(limits(0), [None, Some(Limit::At(800)), Some(Limit::At(800))]);
        assert_eq!(limits(100), [None, Some(Limit::At(300)), None], "0 would kill all that runs there");
    }

    #[test]
    fn memory_that_is_asked_for_is_protected_by_class() {
        let policy = Policy { protects_memory: true, ..Policy::default() };
        let file = |level, memory| {
            let files = files_v2(&pod(&resources(level, 100, None, memory), &policy));
            files
                .iter()
                .find(|f| f.file == "memory.min" || f.file == "memory.low")
                .map(|f| golden(std::slice::from_ref(f)))
        };
        assert_eq!(file(QosLevel::Guaranteed, Some(4096)).as_deref(), Some("memory.min=4096"));
        assert_eq!(file(QosLevel::Burstable, Some(4096)).as_deref(), Some("memory.low=4096"));
        assert_eq!(file(QosLevel::Burstable, None), None);
        assert_eq!(file(QosLevel::BestEffort, None), None);
        let v1 = golden(&files_v1(&pod(&resources(QosLevel::Guaranteed, 100, None, Some(4096)), &policy)));
        assert_eq!(v1, "cpu.shares=102; memory.limit_in_bytes=4096");
    }

    #[test]
    fn huge_pages_of_each_size() {
        let pages = vec![HugePages { size: 2 << 20, limit: 4 << 20 }, HugePages { size: 1 << 30, limit: 0 }];
        let pod = pod(
            &PodResources { huge_pages: pages, ..resources(QosLevel::BestEffort, 0, None, None) },
            &Policy::default(),
        );
        assert_eq!(
            golden(&files_v2(&pod)),
            "cpu.weight=1; hugetlb.2MB.max=4194304; hugetlb.2MB.rsvd.max=4194304; hugetlb.1GB.max=0; hugetlb.1GB.rsvd.max=0"
        );
        assert_eq!(
            golden(&files_v1(&pod)),
            "cpu.shares=2; hugetlb.2MB.limit_in_bytes=4194304; hugetlb.2MB.rsvd.limit_in_bytes=4194304; \
             hugetlb.1GB.limit_in_bytes=0; hugetlb.1GB.rsvd.limit_in_bytes=0"
        );
        assert_eq!([64 << 10, 16 << 30].map(page_size), ["64KB", "16GB"]);
    }

    #[test]
    fn reservations_of_the_system() {
        let amounts = Reservation { cpu: Some(500), memory: Some(1 << 30), pids: Some(1000) };
        let told = |compressible, protected| golden(&files_v2(&reserved(&amounts, compressible, protected)));
        let whole = "cpu.weight=59; memory.max=1073741824; memory.oom.group=0";
        assert_eq!(told(false, false), format!("{whole}; pids.max=1000"));
        assert_eq!(told(false, true), format!("{whole}; memory.min=1073741824; pids.max=1000"));
        assert_eq!(told(true, true), "cpu.weight=59");
        let memory = Reservation { memory: Some(4096), ..Reservation::default() };
        assert_eq!(golden(&files_v1(&reserved(&memory, false, true))), "memory.limit_in_bytes=4096");
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
