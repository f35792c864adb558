//! `/stats/summary`: the types of `stats/v1alpha1` (k8s.io/kubelet) and how samples become them. Pure.

use std::collections::HashMap;

use cgroups::Stats;
use cgroups::stats::Pressure;
use jiff::Timestamp;
use serde::Serialize;

use super::Host;
use super::disk::Held;
use super::network::Interface;
use super::sample::{ContainerSample, PodSample, Sample, Used};
use super::storage::{Look, PodStorage, RuntimeFs, VolumeUse};
use crate::node::facts::Filesystem;

/// The interface that stands for a network (`defaultNetworkInterfaceName`).
const DEFAULT_INTERFACE: &str = "eth0";

/// `Summary`
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub node: NodeStats,
    pub pods: Vec<PodStats>,
}

/// `NodeStats`
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStats {
    pub node_name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system_containers: Vec<ContainerStats>,
    pub start_time: Option<Time>,
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<IoStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fs: Option<FsStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rlimit: Option<RlimitStats>,
    pub swap: SwapStats,
}

/// `RuntimeStats`
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeStats {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_fs: Option<FsStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_fs: Option<FsStats>,
}

/// `RlimitStats`
#[derive(Debug, Clone, Serialize)]
pub struct RlimitStats {
    pub time: Time,
    pub maxpid: u64,
    pub curproc: u64,
}

/// `PodStats`
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStats {
    pub pod_ref: PodReference,
    pub start_time: Option<Time>,
    pub containers: Vec<ContainerStats>,
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<IoStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStats>,
    #[serde(rename = "volume", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeStats>,
    #[serde(rename = "ephemeral-storage", skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<FsStats>,
    #[serde(rename = "process_stats", skip_serializing_if = "Option::is_none")]
    pub process_stats: Option<ProcessStats>,
    pub swap: SwapStats,
}

/// `PodReference`
#[derive(Debug, Clone, Serialize)]
pub struct PodReference {
    pub name: String,
    pub namespace: String,
    pub uid: String,
}

/// `ProcessStats`
#[derive(Debug, Clone, Serialize)]
pub struct ProcessStats {
    pub process_count: u64,
}

/// `ContainerStats`
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStats {
    pub name: String,
    pub start_time: Option<Time>,
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<IoStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<FsStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<FsStats>,
    pub swap: SwapStats,
}

/// `CPUStats`
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuStats {
    pub time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_nano_cores: Option<u64>,
    pub usage_core_nano_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<PsiStats>,
}

/// `MemoryStats`
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStats {
    pub time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    pub usage_bytes: u64,
    pub working_set_bytes: u64,
    pub rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<PsiStats>,
}

/// `IOStats`
#[derive(Debug, Clone, Serialize)]
pub struct IoStats {
    pub time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<PsiStats>,
}

/// `PSIStats`
#[derive(Debug, Clone, Serialize)]
pub struct PsiStats {
    pub full: PsiData,
    pub some: PsiData,
}

/// `PSIData`
#[derive(Debug, Clone, Serialize)]
pub struct PsiData {
    pub total: u64,
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
}

/// `SwapStats`
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SwapStats {
    pub time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_available_bytes: Option<u64>,
    pub swap_usage_bytes: u64,
}

/// `NetworkStats`
#[derive(Debug, Clone, Serialize)]
pub struct NetworkStats {
    pub time: Time,
    #[serde(flatten)]
    pub default: InterfaceStats,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceStats>,
}

/// `InterfaceStats`
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceStats {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_errors: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_errors: Option<u64>,
}

/// `FsStats`
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FsStats {
    pub time: Time,
    pub available_bytes: u64,
    pub capacity_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    pub inodes_free: u64,
    pub inodes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes_used: Option<u64>,
}

/// `VolumeStats`
#[derive(Debug, Clone, Serialize)]
pub struct VolumeStats {
    #[serde(flatten)]
    pub fs: FsStats,
    pub name: String,
    #[serde(rename = "pvcRef", skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimReference>,
}

/// `PVCReference`
#[derive(Debug, Clone, Serialize)]
pub struct ClaimReference {
    pub name: String,
    pub namespace: String,
}

/// `metav1.Time`: whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(Timestamp);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

/// Everything that is known.
#[must_use]
pub fn full(host: &Host, sample: &Sample, look: &Look) -> Summary {
    let time = Time(sample.at);
    let nodefs = |held: Option<Held>| look.nodefs.as_ref().map(|fs| fs_stats(time, fs, held));
    let mut summary = cpu_and_memory(host, sample);
    let node = &mut summary.node;
    node.io = Some(io(&sample.node.stats, time));
    node.network = Some(network(&sample.interfaces, time));
    node.fs = look.nodefs.as_ref().map(|fs| whole(time, fs, fs.used));
    let runtime_fs = |of: &Option<RuntimeFs>| of.as_ref().map(|fs| whole(time, &fs.filesystem, fs.used));
    node.runtime =
        Some(RuntimeStats { image_fs: runtime_fs(&look.imagefs), container_fs: runtime_fs(&look.containerfs) });
    node.rlimit = sample.tasks.map(|(now, max)| RlimitStats { time, maxpid: max, curproc: now });
    let nothing = PodStorage::default();
    for (stats, pod) in summary.pods.iter_mut().zip(&sample.pods) {
        let storage = look.pods.get(&pod.uid).unwrap_or(&nothing);
        stats.io = Some(io(&pod.used.stats, time));
        stats.network = Some(network(&pod.interfaces, time));
        stats.volumes = storage.volumes.iter().map(|volume| volume_stats(volume, &pod.namespace)).collect();
        let ids = pod.containers.iter().map(|container| container.id.as_str());
        stats.ephemeral_storage = nodefs(Some(ephemeral(ids, storage, &look.layers)));
        stats.process_stats = Some(ProcessStats { process_count: processes(pod) });
        for (stats, container) in stats.containers.iter_mut().zip(&pod.containers) {
            stats.io = Some(io(&container.used.stats, time));
            stats.logs = nodefs(Some(storage.logs.get(&container.name).copied().unwrap_or_default()));
            let layer = look.layers.get(&container.id).copied();
            stats.rootfs = look.containerfs.as_ref().map(|fs| fs_stats(time, &fs.filesystem, layer));
        }
    }
    summary
}

/// CPU time, memory and swap.
#[must_use]
pub fn cpu_and_memory(host: &Host, sample: &Sample) -> Summary {
    let time = Time(sample.at);
    let mut node_memory = memory(&sample.node.stats, time);
    // The machine's limit is the memory that it has.
    node_memory.available_bytes = host.facts.memory.checked_sub(node_memory.working_set_bytes);
    let system = sample.all_pods.iter().map(|used| container_stats("pods", host.booted, used, time));
    Summary {
        node: NodeStats {
            node_name: host.node_name.clone(),
            system_containers: system.collect(),
            start_time: host.booted.map(Time),
            cpu: cpu(&sample.node, time),
            memory: node_memory,
            io: None,
            network: None,
            fs: None,
            runtime: None,
            rlimit: None,
            swap: swap(&sample.node.stats, time),
        },
        pods: sample.pods.iter().map(|pod| pod_stats(pod, time)).collect(),
    }
}

fn pod_stats(pod: &PodSample, time: Time) -> PodStats {
    PodStats {
        pod_ref: PodReference {
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            uid: pod.uid.as_str().to_owned(),
        },
        start_time: pod.start_time.map(Time),
        containers: pod.containers.iter().map(|container| of_container(container, time)).collect(),
        cpu: cpu(&pod.used, time),
        memory: memory(&pod.used.stats, time),
        io: None,
        network: None,
        volumes: Vec::new(),
        ephemeral_storage: None,
        process_stats: None,
        swap: swap(&pod.used.stats, time),
    }
}

fn of_container(container: &ContainerSample, time: Time) -> ContainerStats {
    let started = Timestamp::from_nanosecond(i128::from(container.started_at)).ok();
    container_stats(&container.name, started, &container.used, time)
}

fn container_stats(name: &str, started: Option<Timestamp>, used: &Used, time: Time) -> ContainerStats {
    ContainerStats {
        name: name.to_owned(),
        start_time: started.map(Time),
        cpu: cpu(used, time),
        memory: memory(&used.stats, time),
        io: None,
        rootfs: None,
        logs: None,
        swap: swap(&used.stats, time),
    }
}

fn cpu(used: &Used, time: Time) -> CpuStats {
    let stats = &used.stats.cpu;
    CpuStats {
        time,
        usage_nano_cores: used.nano_cores,
        usage_core_nano_seconds: stats.usage,
        psi: stats.pressure.map(psi),
    }
}

fn memory(stats: &Stats, time: Time) -> MemoryStats {
    let memory = &stats.memory;
    MemoryStats {
        time,
        available_bytes: memory.available(),
        usage_bytes: memory.usage,
        working_set_bytes: memory.working_set,
        rss_bytes: memory.rss,
        page_faults: memory.page_faults,
        major_page_faults: memory.major_page_faults,
        psi: memory.pressure.map(psi),
    }
}

fn swap(stats: &Stats, time: Time) -> SwapStats {
    let memory = &stats.memory;
    let available = memory.swap_limit.map(|limit| limit.saturating_sub(memory.swap));
    SwapStats { time, swap_available_bytes: available, swap_usage_bytes: memory.swap }
}

fn io(stats: &Stats, time: Time) -> IoStats {
    IoStats { time, psi: stats.io.pressure.map(psi) }
}

fn psi(pressure: Pressure) -> PsiStats {
    let data = |stall: cgroups::stats::Stall| PsiData {
        total: stall.total,
        avg10: stall.avg10,
        avg60: stall.avg60,
        avg300: stall.avg300,
    };
    PsiStats { full: data(pressure.full), some: data(pressure.some) }
}

fn network(interfaces: &[Interface], time: Time) -> NetworkStats {
    let interfaces: Vec<InterfaceStats> = interfaces.iter().map(interface).collect();
    let default = interfaces.iter().find(|interface| interface.name == DEFAULT_INTERFACE).cloned();
    NetworkStats { time, default: default.unwrap_or_default(), interfaces }
}

fn interface(of: &Interface) -> InterfaceStats {
    InterfaceStats {
        name: of.name.clone(),
        rx_bytes: Some(of.received.bytes),
        rx_errors: Some(of.received.errors),
        tx_bytes: Some(of.sent.bytes),
        tx_errors: Some(of.sent.errors),
    }
}

fn fs_stats(time: Time, filesystem: &Filesystem, held: Option<Held>) -> FsStats {
    FsStats {
        time,
        available_bytes: filesystem.available,
        capacity_bytes: filesystem.capacity,
        used_bytes: held.map(|held| held.bytes),
        inodes_free: filesystem.inodes_free,
        inodes: filesystem.inodes,
        inodes_used: held.map(|held| held.inodes),
    }
}

/// A filesystem as a whole, of which `used` bytes count.
fn whole(time: Time, filesystem: &Filesystem, used: u64) -> FsStats {
    let inodes = filesystem.inodes.saturating_sub(filesystem.inodes_free);
    fs_stats(time, filesystem, Some(Held { bytes: used, inodes, at: time.0 }))
}

fn volume_stats(volume: &VolumeUse, namespace: &str) -> VolumeStats {
    let claim = volume.claim.clone().map(|name| ClaimReference { name, namespace: namespace.to_owned() });
    let fs = fs_stats(Time(volume.held.at), &volume.filesystem, Some(volume.held));
    VolumeStats { fs, name: volume.name.clone(), claim }
}

/// What counts for `ephemeral-storage` of a pod: writable layers, logs, its own files, volumes on the node's disk.
#[must_use]
pub fn ephemeral<'a>(
    containers: impl Iterator<Item = &'a str>,
    storage: &PodStorage,
    layers: &HashMap<String, Held>,
) -> Held {
    let layers = containers.filter_map(|id| layers.get(id));
    let volumes = storage.volumes.iter().filter(|volume| volume.ephemeral).map(|volume| &volume.held);
    let all = layers.chain(storage.logs.values()).chain(volumes).chain([&storage.own]);
    all.fold(Held::default(), |sum, held| Held {
        bytes: sum.bytes.saturating_add(held.bytes),
        inodes: sum.inodes.saturating_add(held.inodes),
        at: sum.at.max(held.at),
    })
}

/// Processes of the sandbox and the containers.
#[must_use]
pub fn processes(pod: &PodSample) -> u64 {
    pod.sandbox.iter().chain(&pod.containers).map(|container| container.processes.count).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::stats::fixture;

    fn held(bytes: u64, inodes: u64) -> Held {
        Held { bytes, inodes, at: fixture::at() }
    }

    fn look() -> Look {
        let fs = Filesystem { capacity: 1000, available: 400, used: 500, inodes: 100, inodes_free: 60 };
        let runtime = RuntimeFs { mountpoint: "/var/lib/containerd".into(), filesystem: fs, used: 300 };
        let volume = |name: &str, ephemeral, claim: Option<&str>| VolumeUse {
            name: name.into(),
            claim: claim.map(str::to_owned),
            ephemeral,
            filesystem: fs,
            held: held(8, 2),
        };
        let pod = PodStorage {
            logs: [("c".to_owned(), held(4, 1))].into(),
            own: held(1, 1),
            volumes: vec![volume("empty", true, None), volume("data", false, Some("claim"))],
        };
        Look {
            root: None,
            nodefs: Some(fs),
            imagefs: Some(runtime.clone()),
            containerfs: Some(runtime),
            layers: [("c1".to_owned(), held(16, 3))].into(),
            pods: [(api::PodUid::new("u"), pod)].into(),
        }
    }

    #[test]
    fn the_summary_has_upstreams_fields() {
        let summary = serde_json::to_value(full(&fixture::host(), &fixture::sample(), &look())).unwrap();
        let node = &summary["node"];
        assert_eq!(node["nodeName"], "n1");
        assert_eq!(node["startTime"], "1970-01-01T00:00:01Z");
        assert_eq!(node["memory"]["availableBytes"], 300);
        assert_eq!(node["cpu"]["usageCoreNanoSeconds"], 5_000_000_000_u64);
        assert_eq!(node["fs"]["usedBytes"], 500);
        assert_eq!(node["runtime"]["imageFs"]["usedBytes"], 300);
        assert_eq!(node["rlimit"], json!({"time": "2023-11-14T22:13:20Z", "maxpid": 100, "curproc": 7}));
        assert_eq!(node["systemContainers"][0]["name"], "pods");
        let pod = &summary["pods"][0];
        assert_eq!(pod["podRef"], json!({"name": "p", "namespace": "ns", "uid": "u"}));
        assert_eq!(pod["network"]["name"], "eth0");
        assert_eq!(pod["network"]["interfaces"][0]["rxBytes"], 10);
        assert_eq!(pod["process_stats"]["process_count"], 3);
        assert_eq!(pod["volume"][1]["pvcRef"], json!({"name": "claim", "namespace": "ns"}));
        // Layer, log, the pod's own, the volume on the node's disk.
        assert_eq!(
            (&pod["ephemeral-storage"]["usedBytes"], &pod["ephemeral-storage"]["inodesUsed"]),
            (&json!(29), &json!(7))
        );
        let container = &pod["containers"][0];
        assert_eq!(container["rootfs"]["usedBytes"], 16);
        assert_eq!(container["logs"]["usedBytes"], 4);
        assert_eq!(container["memory"]["availableBytes"], 40);
        assert_eq!(container["cpu"]["psi"]["some"]["avg10"], 1.5);
        assert_eq!(container["memory"].get("psi"), None);
    }

    #[test]
    fn cpu_and_memory_are_all_that_is_asked_for() {
        let summary = serde_json::to_value(cpu_and_memory(&fixture::host(), &fixture::sample())).unwrap();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&summary["pods"][0]), ["containers", "cpu", "memory", "podRef", "startTime", "swap"]);
        assert_eq!(keys(&summary["node"]), ["cpu", "memory", "nodeName", "startTime", "swap", "systemContainers"]);
    }
}
