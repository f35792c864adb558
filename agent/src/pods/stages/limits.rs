//! Resources of pods and containers as CRI and cgroup values (pkg/kubelet/kuberuntime/kuberuntime_container_linux.go,
//! pkg/kubelet/qos/policy.go). Pure.

use std::collections::HashMap;

use api::pod::CRITICAL_PRIORITY;
use api::qos::QosClass;
use api::quantity::{Format, Quantity};
use api::resources::{self, ResourceList};
use cgroups::values::{self, HugePages, Limit, PodResources, Policy, Requests};
use cgroups::{QosLevel, Values};
use cri::v1::{HugepageLimit, LinuxContainerResources};
use k8s_openapi::api::core::v1::{Container, PodSpec};

/// `oom_score_adj` of Guaranteed and node-critical pods: the kernel takes them last.
const GUARANTEED_OOM: i64 = -997;
const BEST_EFFORT_OOM: i64 = 1000;
/// Files of cgroup v2.
pub const MEMORY_HIGH: &str = "memory.high";
const MEMORY_LOW: &str = "memory.low";
/// The class of pods that the node cannot do without (`SystemNodeCritical`).
const NODE_CRITICAL: &str = "system-node-critical";

/// What of the node decides on values.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine {
    pub policy: Policy,
    /// Bytes of memory.
    pub memory: u64,
    pub cgroup_v2: bool,
    /// Bytes of swap for pods (`memorySwap.swapBehavior: LimitedSwap`); `None` where the kernel does not limit it.
    pub swap: Option<u64>,
    /// Which huge pages there are: bit n stands for pages of 2^n bytes.
    pub huge_pages: u64,
    /// `singleProcessOOMKill`
    pub kills_one: bool,
    /// Where the feature gate `MemoryQoS` is on; only cgroup v2 knows of it.
    pub memory_qos: Option<MemoryQos>,
}

/// How memory is given before there is too little of it (KEP-2570).
#[derive(Debug, Clone, Copy)]
pub struct MemoryQos {
    /// `memoryThrottlingFactor`
    pub factor: f64,
    /// `memoryReservationPolicy: TieredReservation`
    pub protects: bool,
    /// Bytes that all pods may use: the limit of containers that have none.
    pub allocatable: u64,
    /// Bytes of a page.
    pub page: u64,
}

/// The level of the cgroup tree of a class.
#[must_use]
pub fn level(class: QosClass) -> QosLevel {
    match class {
        QosClass::Guaranteed => QosLevel::Guaranteed,
        QosClass::Burstable => QosLevel::Burstable,
        QosClass::BestEffort => QosLevel::BestEffort,
    }
}

/// Values of a pod's cgroup.
#[must_use]
pub fn pod(spec: &PodSpec, machine: &Machine) -> Values {
    let (cpu_limit, memory_limit) = limited(spec);
    let requests = resources::requests(spec);
    let pages = sizes(machine.huge_pages);
    let pod = PodResources {
        level: level(api::qos::class(spec)),
        cpu_request: milli(requests.get("cpu")),
        cpu_limit,
        memory_request: whole(requests.get("memory")),
        memory_limit,
        huge_pages: pages.map(|size| HugePages { size, limit: whole(requests.get(&resource(size))) }).collect(),
    };
    values::pod(&pod, &machine.policy)
}

/// CPU (millicores) and memory (bytes) limits of a pod; only where every container has one, or the pod itself.
#[must_use]
pub fn limited(spec: &PodSpec) -> (Option<u64>, Option<u64>) {
    let limits = resources::limits(spec);
    let own = spec.resources.as_ref().map(|r| resources::read(r.limits.as_ref())).unwrap_or_default();
    let every = |name: &str| {
        let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        own.contains_key(name) || containers.all(|c| limit(c, name).is_some_and(|limit| !limit.is_zero()))
    };
    let cpu = limits.get("cpu").filter(|_| every("cpu")).map(|limit| milli(Some(limit)));
    let memory = limits.get("memory").filter(|_| every("memory")).map(|limit| whole(Some(limit)));
    (cpu, memory)
}

fn limit(container: &Container, name: &str) -> Option<Quantity> {
    resources::read(container.resources.as_ref()?.limits.as_ref()).get(name).copied()
}

/// The sum of the resources of a pod's containers, as the sandbox is told.
#[must_use]
pub fn sandbox(spec: &PodSpec, machine: &Machine) -> LinuxContainerResources {
    let without = |spec: &PodSpec| linux(&resources::requests(spec), &resources::limits(spec), machine);
    match spec.overhead {
        None => without(spec),
        Some(_) => without(&PodSpec { overhead: None, ..spec.clone() }),
    }
}

/// Values of a pod's cgroup as its sandbox is told of them, without what the sandbox itself costs.
#[must_use]
pub fn told(values: &Values) -> LinuxContainerResources {
    let limit = |limit: Option<Limit>| match limit {
        None => 0,
        Some(Limit::Unlimited) => -1,
        Some(Limit::At(amount)) => signed(amount),
    };
    LinuxContainerResources {
        cpu_shares: values.cpu_shares.map_or(0, signed),
        cpu_quota: limit(values.cpu_quota),
        cpu_period: values.cpu_period.map_or(0, signed),
        memory_limit_in_bytes: limit(values.memory),
        ..LinuxContainerResources::default()
    }
}

/// What the sandbox itself costs (`spec.overhead`), as it is told.
#[must_use]
pub fn overhead(spec: &PodSpec, machine: &Machine) -> LinuxContainerResources {
    if spec.overhead.is_none() {
        return LinuxContainerResources::default();
    }
    let overhead = resources::read(spec.overhead.as_ref());
    linux(&overhead, &overhead, machine)
}

/// What pods ask for, by their class.
pub fn class_requests<'a>(specs: impl Iterator<Item = &'a PodSpec>) -> Requests {
    let mut sum = Requests::default();
    for spec in specs {
        let requests = resources::requests(spec);
        let memory = whole(requests.get("memory"));
        match api::qos::class(spec) {
            QosClass::Guaranteed => sum.guaranteed_memory = sum.guaranteed_memory.saturating_add(memory),
            QosClass::Burstable => {
                sum.burstable_cpu = sum.burstable_cpu.saturating_add(milli(requests.get("cpu")));
                sum.burstable_memory = sum.burstable_memory.saturating_add(memory);
            }
            QosClass::BestEffort => {}
        }
    }
    sum
}

/// A container's resources.
#[must_use]
pub fn container(spec: &PodSpec, container: &Container, machine: &Machine) -> LinuxContainerResources {
    let of = container.resources.as_ref();
    let requests = resources::read(of.and_then(|r| r.requests.as_ref()));
    let limits = resources::read(of.and_then(|r| r.limits.as_ref()));
    let in_effect = resources::read(resources::in_effect(spec, container).limits.as_ref());
    let mut out = linux(&requests, &in_effect, machine);
    out.oom_score_adj = oom_score(spec, container, machine.memory);
    let of_pod = spec.resources.as_ref().map(|r| resources::read(r.limits.as_ref())).unwrap_or_default();
    out.hugepage_limits = hugepages(&of_pod, &limits, machine.huge_pages);
    if machine.cgroup_v2 {
        out.unified = unified(spec, (&requests, &limits), machine);
    }
    out
}

/// Values that only cgroup v2 has.
fn unified(
    spec: &PodSpec,
    (requests, limits): (&ResourceList, &ResourceList),
    machine: &Machine,
) -> HashMap<String, String> {
    let mut out = HashMap::new();
    if !machine.kills_one {
        // All processes of a container are killed together.
        out.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    if let Some(available) = machine.swap {
        let swap = swap(spec, (requests, limits), available, machine.memory);
        out.insert("memory.swap.max".to_owned(), swap.to_string());
    }
    if let Some(qos) = &machine.memory_qos {
        let amounts = (whole(requests.get("memory")), whole(limits.get("memory")));
        out.extend(memory_qos(api::qos::class(spec), amounts, qos));
    }
    out
}

/// What is protected of a container's memory, and from where on it is slowed down.
fn memory_qos(class: QosClass, (request, limit): (u64, u64), qos: &MemoryQos) -> HashMap<String, String> {
    let mut out = HashMap::new();
    let mut put = |file: &str, bytes: u64| drop(out.insert(file.to_owned(), bytes.to_string()));
    match class {
        _ if request == 0 || !qos.protects => {
            put("memory.min", 0);
            put(MEMORY_LOW, 0);
        }
        QosClass::Guaranteed => put("memory.min", request),
        _ => put(MEMORY_LOW, request),
    }
    if let Some(high) = throttled_from(request, limit, qos) {
        put(MEMORY_HIGH, high);
    }
    out
}

/// `memory.high`: whole pages, between the request and what there is at most; none where there is nothing between.
fn throttled_from(request: u64, limit: u64, qos: &MemoryQos) -> Option<u64> {
    if request == limit {
        return None;
    }
    let most = if limit == 0 { qos.allocatable } else { limit };
    // As upstream counts; below 2^53 bytes it is exact.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
    let high = (request as f64 + (most as f64 - request as f64) * qos.factor) as u64;
    let high = high.checked_div(qos.page)?.saturating_mul(qos.page);
    Some(high).filter(|high| *high > request && most > 0)
}

/// Bytes that a container may swap: its share of the node's memory, of what there is (`LimitedSwap`). Others' memory stays where it is.
fn swap(spec: &PodSpec, (requests, limits): (&ResourceList, &ResourceList), available: u64, memory: u64) -> u64 {
    let is_critical = spec.priority.is_some_and(|priority| priority >= CRITICAL_PRIORITY);
    let request = whole(requests.get("memory"));
    let is_fixed = requests.get("memory").unwrap_or(&Quantity::ZERO) == limits.get("memory").unwrap_or(&Quantity::ZERO);
    if is_critical || is_fixed || api::qos::class(spec) != QosClass::Burstable || request > memory {
        return 0;
    }
    let share = u128::from(request) * u128::from(available);
    share.checked_div(u128::from(memory)).and_then(|share| u64::try_from(share).ok()).unwrap_or(0)
}

/// Whether a container may swap.
#[must_use]
pub fn swaps(spec: &PodSpec, container: &Container, machine: &Machine) -> bool {
    let of = container.resources.as_ref();
    let requests = resources::read(of.and_then(|r| r.requests.as_ref()));
    let limits = resources::read(of.and_then(|r| r.limits.as_ref()));
    let available = machine.swap.filter(|_| machine.cgroup_v2);
    available.is_some_and(|available| swap(spec, (&requests, &limits), available, machine.memory) > 0)
}

fn linux(requests: &ResourceList, limits: &ResourceList, machine: &Machine) -> LinuxContainerResources {
    // A limit without a request is the request too.
    let cpu = requests.get("cpu").or_else(|| limits.get("cpu"));
    let mut out = LinuxContainerResources {
        cpu_shares: signed(values::shares(milli(cpu))),
        memory_limit_in_bytes: signed(whole(limits.get("memory"))),
        ..LinuxContainerResources::default()
    };
    if machine.policy.enforce_cpu_limits
        && let Limit::At(quota) = values::quota(milli(limits.get("cpu")), machine.policy.cpu_period)
    {
        out.cpu_quota = signed(quota);
        out.cpu_period = signed(machine.policy.cpu_period);
    }
    out
}

/// The sizes, in bytes, of what is a bit a size.
fn sizes(bits: u64) -> impl Iterator<Item = u64> {
    (0..u64::BITS).map(|bit| 1 << bit).filter(move |size| bits & size != 0)
}

/// The resource of huge pages of a size.
fn resource(size: u64) -> String {
    format!("hugepages-{}", Quantity::new(signed(size), Format::BinarySi))
}

/// A limit for every size of pages that there is: what neither the container nor its pod names, it may not have.
fn hugepages(pod: &ResourceList, container: &ResourceList, bits: u64) -> Vec<HugepageLimit> {
    let limits = sizes(bits).map(|size| {
        let name = resource(size);
        let limit = container.get(&name).or_else(|| pod.get(&name));
        HugepageLimit { page_size: values::page_size(size), limit: whole(limit) }
    });
    limits.collect()
}

/// The bigger its share of the node's memory, the later a Burstable container is killed, and sidecars no earlier than any
/// container that they serve (`GetContainerOOMScoreAdjust`).
fn oom_score(spec: &PodSpec, container: &Container, capacity: u64) -> i64 {
    if spec.priority_class_name.as_deref() == Some(NODE_CRITICAL) {
        return GUARANTEED_OOM;
    }
    match api::qos::class(spec) {
        QosClass::Guaranteed => GUARANTEED_OOM,
        QosClass::BestEffort => BEST_EFFORT_OOM,
        QosClass::Burstable => {
            let served = spec.containers.iter().map(memory_request).min().filter(|_| is_sidecar_of(spec, container));
            let request = memory_request(container).max(served.unwrap_or(0)).saturating_add(unassigned(spec));
            let part = (1000 * u128::from(request)).checked_div(u128::from(capacity)).unwrap_or(0);
            let score = BEST_EFFORT_OOM - i64::try_from(part).unwrap_or(BEST_EFFORT_OOM);
            score.clamp(BEST_EFFORT_OOM + GUARANTEED_OOM, BEST_EFFORT_OOM - 1)
        }
    }
}

/// Bytes of memory that a container asks for.
#[must_use]
pub fn memory_request(container: &Container) -> u64 {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    whole(resources::read(requests).get("memory"))
}

fn is_sidecar_of(spec: &PodSpec, container: &Container) -> bool {
    let mut init = spec.init_containers.iter().flatten();
    resources::is_sidecar(container) && init.any(|other| other.name == container.name)
}

/// Of the memory that the pod asks for beyond its containers: each one's share (KEP-2837).
fn unassigned(spec: &PodSpec) -> u64 {
    let of_pod = spec.resources.as_ref().map(|r| resources::read(r.requests.as_ref())).unwrap_or_default();
    let rest = whole(of_pod.get("memory")).saturating_sub(whole(resources::container_requests(spec).get("memory")));
    let count = spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len);
    u64::try_from(count).ok().and_then(|count| rest.checked_div(count)).unwrap_or(0)
}

fn milli(quantity: Option<&Quantity>) -> u64 {
    quantity.and_then(|q| u64::try_from(q.milli_value()).ok()).unwrap_or(0)
}

fn whole(quantity: Option<&Quantity>) -> u64 {
    quantity.and_then(|q| u64::try_from(q.value()).ok()).unwrap_or(0)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine { policy: Policy::default(), memory: 8 << 30, ..Machine::default() }
    }

    #[test]
    fn pages_that_nobody_names_are_forbidden() {
        let mut spec = spec(&[serde_json::json!({"limits": {"hugepages-2Mi": "4Mi"}}), serde_json::json!({})]);
        let machine = Machine { huge_pages: (1 << 21) | (1 << 30), ..machine() };
        let told = |spec: &PodSpec, index: usize| {
            let limits = container(spec, &spec.containers[index], &machine).hugepage_limits;
            limits.into_iter().map(|limit| format!("{} {}", limit.page_size, limit.limit)).collect::<Vec<_>>()
        };
        assert_eq!(told(&spec, 0), ["2MB 4194304", "1GB 0"]);
        assert_eq!(told(&spec, 1), ["2MB 0", "1GB 0"]);
        spec.resources = serde_json::from_value(serde_json::json!({"limits": {"hugepages-1Gi": "1Gi"}})).unwrap();
        assert_eq!(told(&spec, 0), ["2MB 4194304", "1GB 1073741824"], "its pod may");
    }

    #[test]
    fn the_cgroup_of_a_pod_has_the_pages_that_it_asks_for() {
        let pages = serde_json::json!({"hugepages-2Mi": "4Mi", "memory": "1Mi"});
        let spec = spec(&[serde_json::json!({"limits": pages, "requests": pages}), serde_json::json!({})]);
        let machine = Machine { huge_pages: (1 << 21) | (1 << 30), ..machine() };
        let expected = [HugePages { size: 2 << 20, limit: 4 << 20 }, HugePages { size: 1 << 30, limit: 0 }];
        assert_eq!(pod(&spec, &machine).huge_pages, expected);
        assert_eq!(pod(&PodSpec::default(), &machine).huge_pages[0].limit, 0);
    }

    /// What of its memory a container is told, and its pod, for `RESOURCES` and the policy.
    fn memory(resources: serde_json::Value, protects: bool) -> String {
        let qos = MemoryQos { factor: 0.9, protects, allocatable: 10 << 30, page: 4096 };
        let policy = Policy { protects_memory: protects, ..Policy::default() };
        let machine = Machine { policy, cgroup_v2: true, memory_qos: Some(qos), ..machine() };
        let spec = spec(&[resources]);
        let told = container(&spec, &spec.containers[0], &machine).unified;
        let told = told.iter().filter(|(file, _)| *file != "memory.oom.group").map(|(f, value)| format!("{f}={value}"));
        let mut told: Vec<String> = told.collect();
        told.sort();
        let of_pod = pod(&spec, &machine);
        format!("{} | {:?} {:?}", told.join(" "), of_pod.memory_min, of_pod.memory_low)
    }

    #[test]
    fn memory_is_throttled_below_its_limit_and_protected_as_it_is_asked_for() {
        let amounts = |request: u64, limit: Option<u64>| {
            let of = |amount: u64| serde_json::json!({"memory": amount.to_string(), "cpu": "1"});
            serde_json::json!({"requests": of(request), "limits": limit.map(of)})
        };
        let guaranteed = amounts(4096, Some(4096));
        assert_eq!(memory(guaranteed.clone(), true), "memory.min=4096 | Some(4096) None");
        assert_eq!(memory(guaranteed, false), "memory.low=0 memory.min=0 | None None");
        // Ten pages and a hundred: ninety-one of them, whole ones.
        let burstable = amounts(40_960, Some(409_600));
        assert_eq!(memory(burstable.clone(), true), "memory.high=372736 memory.low=40960 | None Some(40960)");
        assert_eq!(memory(burstable, false), "memory.high=372736 memory.low=0 memory.min=0 | None None");
        // Without a limit it is what the node has.
        let high = (9_u64 << 30) + 4096;
        assert_eq!(
            memory(amounts(40_960, None), true),
            format!("memory.high={high} memory.low=40960 | None Some(40960)")
        );
        assert_eq!(memory(serde_json::json!({}), true), "memory.low=0 memory.min=0 | None None");
        // Nothing lies between a request and a page more.
        assert_eq!(memory(amounts(4096, Some(8191)), true), "memory.low=4096 | None Some(4096)");
    }

    #[test]
    fn burstable_containers_may_swap_their_share() {
        let v2 = |swap| Machine { cgroup_v2: true, swap, ..machine() };
        let swap = |resources: serde_json::Value, machine: Machine| {
            let spec = spec(&[resources, serde_json::json!({"requests": {"cpu": "1m"}})]);
            container(&spec, &spec.containers[0], &machine).unified.remove("memory.swap.max")
        };
        let request = serde_json::json!({"requests": {"memory": "2Gi"}});
        assert_eq!(swap(request.clone(), v2(Some(1 << 30))).as_deref(), Some("268435456"), "a quarter");
        assert_eq!(swap(request.clone(), v2(Some(0))).as_deref(), Some("0"), "NoSwap");
        assert_eq!(swap(request, v2(None)), None);
        for fixed in
            [serde_json::json!({}), serde_json::json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}})]
        {
            assert_eq!(swap(fixed, v2(Some(1 << 30))).as_deref(), Some("0"));
        }
        let group = |kills_one| {
            let machine = Machine { kills_one, ..v2(None) };
            let spec = spec(&[serde_json::json!({})]);
            container(&spec, &spec.containers[0], &machine).unified.contains_key("memory.oom.group")
        };
        assert_eq!([false, true].map(group), [true, false]);
    }

    fn spec(resources: &[serde_json::Value]) -> PodSpec {
        let containers: Vec<_> = resources
            .iter()
            .enumerate()
            .map(|(i, r)| serde_json::json!({"name": format!("c{i}"), "resources": r}))
            .collect();
        serde_json::from_value(serde_json::json!({ "containers": containers })).unwrap()
    }

    fn first(spec: &PodSpec) -> String {
        let r = container(spec, &spec.containers[0], &machine());
        format!("{} {}/{} {} oom {}", r.cpu_shares, r.cpu_quota, r.cpu_period, r.memory_limit_in_bytes, r.oom_score_adj)
    }

    #[test]
    fn containers_of_each_class() {
        let full = serde_json::json!({"cpu": "500m", "memory": "64Mi"});
        assert_eq!(
            first(&spec(&[serde_json::json!({"limits": full, "requests": full})])),
            "512 50000/100000 67108864 oom -997"
        );
        assert_eq!(first(&spec(&[serde_json::json!({})])), "2 0/0 0 oom 1000");
        let burst = serde_json::json!({"requests": {"cpu": "100m", "memory": "4Gi"}});
        assert_eq!(first(&spec(&[burst])), "102 0/0 0 oom 500");
        let small = serde_json::json!({"requests": {"memory": "1Mi"}});
        assert_eq!(first(&spec(&[small])), "2 0/0 0 oom 999");
    }

    #[test]
    fn memory_of_the_pod_counts_for_each_container() {
        let request = |memory: &str| serde_json::json!({"requests": {"memory": memory}});
        let mut spec = spec(&[request("1Gi"), request("3Gi")]);
        let sidecar = serde_json::json!([{"name": "s", "restartPolicy": "Always", "resources": request("0")}]);
        spec.init_containers = serde_json::from_value(sidecar).unwrap();
        let score = |spec: &PodSpec, container: &Container| super::container(spec, container, &machine()).oom_score_adj;
        let scores = |spec: &PodSpec| {
            let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            all.map(|container| score(spec, container)).collect::<Vec<_>>()
        };
        assert_eq!(scores(&spec), [875, 625, 875], "a sidecar goes no earlier than any of the others");
        spec.resources = serde_json::from_value(request("7Gi")).unwrap();
        assert_eq!(scores(&spec), [750, 500, 750], "three GiB that are nobody's are everybody's");
    }

    #[test]
    fn limits_of_the_pod_hold_for_containers_without() {
        let mut spec = spec(&[serde_json::json!({}), serde_json::json!({"limits": {"cpu": "100m"}})]);
        spec.resources =
            serde_json::from_value(serde_json::json!({"limits": {"cpu": "500m", "memory": "64Mi"}})).unwrap();
        let told = |index: usize| {
            let out = container(&spec, &spec.containers[index], &machine());
            (out.cpu_quota, out.memory_limit_in_bytes >> 20)
        };
        assert_eq!([told(0), told(1)], [(50_000, 64), (10_000, 64)]);
    }

    #[test]
    fn overhead_is_told_apart() {
        let mut spec = spec(&[serde_json::json!({"requests": {"cpu": "100m"}, "limits": {"memory": "1Mi"}})]);
        spec.overhead = serde_json::from_value(serde_json::json!({"cpu": "250m", "memory": "2Mi"})).unwrap();
        let told = |r: LinuxContainerResources| (r.cpu_shares, r.cpu_quota, r.memory_limit_in_bytes);
        assert_eq!(told(sandbox(&spec, &machine())), (102, 0, 1 << 20));
        assert_eq!(told(overhead(&spec, &machine())), (256, 25_000, 2 << 20));
        let sum = class_requests([&spec, &PodSpec::default()].into_iter());
        assert_eq!((sum.burstable_cpu, sum.burstable_memory, sum.guaranteed_memory), (350, 2 << 20, 0));
    }

    #[test]
    fn a_pod_is_limited_when_all_its_containers_are() {
        let limit = serde_json::json!({"limits": {"memory": "1Gi"}});
        assert_eq!(limited(&spec(&[limit.clone(), limit.clone()])), (None, Some(2 << 30)));
        assert_eq!(limited(&spec(&[limit, serde_json::json!({})])), (None, None));
    }
}
