use cgroups::values::Policy;
use serde_json::{Value, json};

use super::*;

const MACHINE: Machine = Machine {
    policy: Policy { enforce_cpu_limits: true, cpu_period: 100_000, pids_limit: None, protects_memory: false },
    memory: 8 << 30,
    cgroup_v2: false,
    swap: None,
    huge_pages: 0,
    kills_one: false,
    memory_qos: None,
};

/// Containers `c0`, `c1`, … with equal requests and limits of cpu (millicores) and memory (MiB).
fn spec(amounts: &[(u32, u32)]) -> PodSpec {
    let container = |(index, (cpu, memory)): (usize, &(u32, u32))| {
        let list = json!({"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")});
        json!({"name": format!("c{index}"), "resources": {"requests": list, "limits": list}})
    };
    let containers: Vec<Value> = amounts.iter().enumerate().map(container).collect();
    serde_json::from_value(json!({"containers": containers})).unwrap()
}

fn resized(from: &PodSpec) -> Vec<Resized> {
    let of = |container: &Container| Resized {
        id: ContainerId::new(format!("id-{}", container.name)),
        name: container.name.clone(),
        has: container.resources.clone().unwrap(),
    };
    from.containers.iter().map(of).collect()
}

/// The writes in words: `pod memory=…`, `id-c0 cpu=QUOTA/SHARES memory=…`, in MiB and microseconds.
fn told(from: &[(u32, u32)], to: &[(u32, u32)]) -> Vec<String> {
    let (from, to) = (spec(from), spec(to));
    let write = |write: Write| match write {
        Write::Pod(values) => {
            let files = cgroups::values::files_v1(&values);
            let told: Vec<_> = files.iter().map(|file| format!("{}={}", file.file, file.value)).collect();
            format!("pod {}", told.join(" "))
        }
        Write::Container { id, resources } => {
            let memory = resources.memory_limit_in_bytes >> 20;
            format!("{id} cpu={}/{} memory={memory}", resources.cpu_quota, resources.cpu_shares)
        }
    };
    writes(&from, &to, &resized(&from), &MACHINE).into_iter().map(write).collect()
}

#[test]
fn the_runtime_is_told_step_by_step_and_without_overhead() {
    let with_overhead = |amounts| {
        let overhead = serde_json::from_value(json!({"cpu": "100m", "memory": "8Mi"})).unwrap();
        PodSpec { overhead: Some(overhead), ..spec(amounts) }
    };
    let (from, to) = (with_overhead(&[(100, 64)]), with_overhead(&[(200, 128)]));
    let mut told = Told::new(&from, &to, &MACHINE);
    let mut steps = Vec::new();
    for write in writes(&from, &to, &resized(&from), &MACHINE) {
        let Write::Pod(values) = write else { continue };
        told.now = told.after(&values);
        let now = limits::told(&told.now);
        steps.push((now.cpu_quota, now.cpu_shares, now.memory_limit_in_bytes >> 20));
    }
    assert_eq!(steps, [(10_000, 102, 128), (20_000, 102, 128), (20_000, 204, 128)]);
    assert_eq!((told.overhead.cpu_quota, told.overhead.memory_limit_in_bytes >> 20), (10_000, 8));
}

#[test]
fn a_pod_grows_before_its_containers() {
    assert_eq!(
        told(&[(100, 64)], &[(200, 128)]),
        [
            "pod memory.limit_in_bytes=134217728",
            "id-c0 cpu=10000/102 memory=128",
            "pod cpu.cfs_period_us=100000 cpu.cfs_quota_us=20000",
            "pod cpu.shares=204",
            "id-c0 cpu=20000/204 memory=128",
        ]
    );
}

#[test]
fn and_shrinks_after_them() {
    assert_eq!(
        told(&[(200, 128)], &[(100, 64)]),
        [
            "id-c0 cpu=20000/204 memory=64",
            "pod memory.limit_in_bytes=67108864",
            "id-c0 cpu=10000/102 memory=64",
            "pod cpu.shares=102",
            "pod cpu.cfs_period_us=100000 cpu.cfs_quota_us=10000",
        ]
    );
}

#[test]
fn what_shrinks_makes_room_for_what_grows() {
    // The pod as a whole stays as it is.
    assert_eq!(
        told(&[(100, 64), (200, 128)], &[(200, 64), (100, 128)]),
        ["id-c1 cpu=10000/102 memory=128", "id-c0 cpu=20000/204 memory=64"]
    );
    assert_eq!(told(&[(100, 64)], &[(100, 64)]), Vec::<String>::new());
}

#[test]
fn memory_that_shrinks_is_looked_at() {
    let (from, to) = (spec(&[(100, 64), (100, 64)]), spec(&[(100, 32), (100, 80)]));
    let found = shrinking(&from, &to, &resized(&from));
    let told: Vec<_> = found.iter().map(|(c, limit)| (c.as_ref().map(|c| c.name.as_str()), limit >> 20)).collect();
    assert_eq!(told, [(None, 112), (Some("c0"), 32)]);
}

#[test]
fn a_throttle_that_does_not_hold_any_more_is_taken_off() {
    let qos = limits::MemoryQos { factor: 0.9, protects: true, allocatable: 8 << 30, page: 4096 };
    let machine = Machine { cgroup_v2: true, memory_qos: Some(qos), ..MACHINE };
    let (from, to) = (spec(&[(100, 64)]), spec(&[(100, 128)]));
    let told = writes(&from, &to, &resized(&from), &machine).into_iter().find_map(|write| match write {
        Write::Container { resources, .. } => Some(resources.unified),
        Write::Pod(_) => None,
    });
    let told = told.unwrap();
    assert_eq!((told["memory.high"].as_str(), told["memory.min"].as_str()), ("max", "134217728"));
}
