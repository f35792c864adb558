//! A node with one pod, for tests.

use cgroups::Stats;
use cgroups::stats::{DeviceIo, Pressure, Stall, Tasks};

use super::network::{Interface, Traffic};
use super::processes::Processes;
use super::sample::{ContainerSample, PodSample, Sample, Used};
use super::*;

pub fn at() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

pub fn host() -> Host {
    let facts = Facts { cpus: 2, memory: 1000, ..Facts::default() };
    Host { node_name: "n1".into(), facts, booted: Timestamp::from_second(1).ok() }
}

fn used(cgroup: &str, cpu: u64, memory: u64) -> Used {
    let mut stats = Stats::default();
    stats.cpu.usage = cpu;
    stats.memory.usage = memory + 1;
    stats.memory.working_set = memory;
    Used { cgroup: cgroup.into(), stats, nano_cores: Some(7) }
}

fn container(name: &str, id: &str) -> ContainerSample {
    let mut used = used(&format!("/kubepods/podu/{id}"), 1_500_000_000, 60);
    let memory = &mut used.stats.memory;
    (memory.limit, memory.swap_limit, memory.page_faults) = (Some(100), Some(4096), 9);
    let cpu = &mut used.stats.cpu;
    (cpu.shares, cpu.period, cpu.quota, cpu.throttled_periods) = (2, 100_000, Some(50_000), 4);
    cpu.pressure =
        Some(Pressure { some: Stall { avg10: 1.5, total: 2_000_000, ..Stall::default() }, ..Pressure::default() });
    used.stats.tasks = Tasks { current: 5, max: None };
    used.stats.io.devices = vec![DeviceIo { major: 9999, minor: 1, read_bytes: 512, ..DeviceIo::default() }];
    ContainerSample {
        name: name.into(),
        id: id.into(),
        image: "docker.io/library/app:1".into(),
        started_at: 1_600_000_000_500_000_000,
        used,
        processes: Processes { count: 2, files: 8, sockets: 1, first: Some(1), max_files: Some(1024) },
    }
}

pub fn sample() -> Sample {
    let traffic = Traffic { bytes: 10, packets: 1, errors: 0, dropped: 0 };
    let interface = Interface { name: "eth0".into(), received: traffic, sent: traffic };
    let mut sandbox = container("", "s1");
    sandbox.processes = Processes { count: 1, ..Processes::default() };
    let pod = PodSample {
        uid: api::PodUid::new("u"),
        namespace: "ns".into(),
        name: "p".into(),
        start_time: Some(at()),
        used: used("/kubepods/podu", 2_000_000_000, 80),
        sandbox: Some(sandbox),
        interfaces: vec![interface.clone()],
        containers: vec![container("c", "c1")],
    };
    Sample {
        at: at(),
        node: used("/", 5_000_000_000, 700),
        all_pods: Some(used("/kubepods", 2_000_000_000, 80)),
        interfaces: vec![interface],
        tasks: Some((7, 100)),
        pods: vec![pod],
    }
}
