use serde_json::json;

use super::super::decide::Observation;
use super::super::threshold::Amount;
use super::*;

fn pod(name: &str, priority: i32, requests: &serde_json::Value) -> Arc<Pod> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "priority": priority,
                "containers": [{"name": "c", "resources": {"requests": requests}}],
                "volumes": [{"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}],
            },
        }))
        .unwrap(),
    )
}

fn using(memory: u64) -> Option<Used> {
    let container = ContainerUse { memory, ..ContainerUse::default() };
    Some(Used { memory, containers: [("c".to_owned(), container)].into(), ..Used::default() })
}

fn order(mut candidates: Vec<Candidate>, signal: Signal, disks: Disks) -> Vec<String> {
    rank(&mut candidates, signal, disks);
    candidates.into_iter().map(|candidate| candidate.pod.metadata.name.clone().unwrap()).collect()
}

#[test]
fn memory_is_taken_from_those_that_use_more_than_they_asked_for() {
    let candidate = |name: &str, priority, request: &str, used| Candidate {
        pod: pod(name, priority, &json!({ "memory": request })),
        used,
    };
    let candidates = vec![
        candidate("within", 0, "100", using(90)),
        candidate("above-high", 10, "10", using(500)),
        candidate("above-little", 0, "10", using(20)),
        candidate("above-much", 0, "10", using(400)),
        candidate("unknown", 100, "10", None),
        candidate("within-more", 0, "1000", using(200)),
    ];
    assert_eq!(
        order(candidates, Signal::Memory, Disks::One),
        ["unknown", "above-much", "above-little", "above-high", "within", "within-more"]
    );
}

#[test]
fn threads_are_taken_by_priority() {
    let candidate = |name: &str, priority, processes| Candidate {
        pod: pod(name, priority, &json!({})),
        used: Some(Used { processes, ..Used::default() }),
    };
    let candidates = vec![candidate("high", 5, 900), candidate("few", 0, 1), candidate("many", 0, 50)];
    assert_eq!(order(candidates, Signal::Pid, Disks::One), ["many", "few", "high"]);
}

#[test]
fn only_what_lies_on_the_filesystem_counts() {
    let disk = |bytes| Disk { bytes, inodes: bytes / 10 };
    let candidate = |name: &str, rootfs, logs, volume| {
        let container = ContainerUse { memory: 0, rootfs: disk(rootfs), logs: disk(logs) };
        let volumes = [("disk".to_owned(), disk(volume)), ("memory".to_owned(), disk(9999))].into();
        let used = Used { containers: [("c".to_owned(), container)].into(), volumes, ..Used::default() };
        Candidate { pod: pod(name, 0, &json!({"ephemeral-storage": "10"})), used: Some(used) }
    };
    let all = || vec![candidate("layer", 500, 0, 0), candidate("logs", 0, 300, 0), candidate("volume", 0, 0, 400)];
    assert_eq!(order(all(), Signal::NodeFs, Disks::One), ["layer", "volume", "logs"]);
    assert_eq!(order(all(), Signal::NodeFs, Disks::ImageFs), ["volume", "logs", "layer"]);
    assert_eq!(order(all(), Signal::ImageFs, Disks::ImageFs)[0], "layer");
    assert_eq!(order(all(), Signal::ContainerFsInodes, Disks::Split), ["layer", "volume", "logs"]);
}

#[test]
fn what_helps_before_a_pod_goes() {
    use Reclaim::{Containers, Images};
    assert_eq!(reclaims(Signal::NodeFs, Disks::One), [Containers, Images]);
    assert_eq!(reclaims(Signal::NodeFs, Disks::ImageFs), []);
    assert_eq!(reclaims(Signal::ImageFsInodes, Disks::ImageFs), [Containers, Images]);
    assert_eq!(reclaims(Signal::ImageFs, Disks::Split), [Images]);
    assert_eq!(reclaims(Signal::ContainerFs, Disks::Split), [Containers]);
    assert_eq!(reclaims(Signal::Memory, Disks::One), []);
}

#[test]
fn an_eviction_is_explained_as_upstream_explains_it() {
    let threshold = |signal| Threshold {
        signal,
        value: Amount::Quantity("100Mi".parse().unwrap()),
        grace: std::time::Duration::ZERO,
        min_reclaim: None,
    };
    let memory = threshold(Signal::Memory);
    let observations = [(Signal::Memory, Observation { available: 50 << 20, capacity: 1 << 30 })].into();
    let candidate = Candidate { pod: pod("p", 0, &json!({"memory": "10Mi"})), used: using(64 << 20) };
    let (text, annotations) = message(&candidate, &memory, &[&memory], &observations);
    assert_eq!(
        text,
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 64Mi, \
         request is 10Mi, has larger consumption of memory. "
    );
    assert_eq!(annotations["starved_resource"], "memory");
    assert_eq!(
        (annotations["offending_containers"].as_str(), annotations["offending_containers_usage"].as_str()),
        ("c", "64Mi")
    );
    let modest = Candidate { used: using(1), ..candidate };
    let (text, annotations) = message(&modest, &memory, &[&memory], &observations);
    assert!(text.ends_with("available: 50Mi. "), "{text}");
    assert_eq!(annotations["offending_containers"], "");
    let pid = threshold(Signal::Pid);
    assert_eq!(message(&modest, &pid, &[&pid], &observations).0, "The node was low on resource: pids. ");
}
