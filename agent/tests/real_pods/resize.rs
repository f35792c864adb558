//! Pods whose resources change while they run: against a runtime in memory, and on containerd.

use std::time::Duration;

use cgroups::Depth;
use serde_json::{Value, json};

use crate::containerd::{self, until, until_ready};
use crate::disturbed::{Node, ready};

fn spec(cpu: &str, memory: &str, policy: &str) -> Value {
    let resources = json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}});
    let policy = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
    json!({
        "terminationGracePeriodSeconds": 1, "restartPolicy": "Always",
        "containers": [
            {"name": "c", "image": "example.com/c:1", "resources": resources, "resizePolicy": policy},
            {"name": "d", "image": "example.com/d:1", "resources": resources}]
    })
}

/// An agent of a node with two cpus.
fn start(node: &Node) -> agent::pods::PodsHandle {
    node.agent_with(|config| {
        for (name, amount) in [("cpu", "2"), ("memory", "8Gi")] {
            config.allocatable.insert(name.to_owned(), amount.parse().unwrap());
        }
    })
}

fn resize(node: &Node, name: &str, cpu: &str, memory: &str) {
    node.api.update(name, |pod| {
        for list in ["requests", "limits"] {
            pod["spec"]["containers"][0]["resources"][list] = json!({"cpu": cpu, "memory": memory});
        }
    });
}

fn condition(pod: &Value, name: &str) -> Option<Value> {
    pod["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == name).cloned()
}

/// Whether the first container has it, and nothing of a resize is left to do.
fn has(node: &Node, name: &str, cpu: &str, memory: &str) -> bool {
    let pod = node.api.pod(name).unwrap_or_default();
    let status = &pod["status"]["containerStatuses"][0];
    let is_done = ["PodResizePending", "PodResizeInProgress"].iter().all(|name| condition(&pod, name).is_none());
    let wanted = json!({"cpu": cpu, "memory": memory});
    is_done && ready(&pod) && status["resources"]["limits"] == wanted && status["allocatedResources"] == wanted
}

fn said(node: &Node, start: &str) -> usize {
    node.api.events().iter().filter(|event| event.starts_with(start)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_gets_more_without_a_restart_and_keeps_it() {
    let node = Node::new("resize");
    let agent = start(&node);
    node.api.create("p", spec("100m", "64Mi", "NotRequired"));
    node.until("the pod is Ready", || has(&node, "p", "100m", "64Mi")).await;
    resize(&node, "p", "200m", "128Mi");
    node.until("it has more", || has(&node, "p", "200m", "128Mi")).await;
    let containers = node.fake.containers();
    assert_eq!(containers.len(), 2);
    let resources =
        containers.iter().find(|c| c.name() == "c").unwrap().config.linux.clone().unwrap().resources.unwrap();
    assert_eq!((resources.cpu_quota, resources.memory_limit_in_bytes >> 20), (20_000, 128));
    assert_eq!(node.fake.count("UpdatePodSandboxResources"), 3, "memory, quota, shares");
    node.until("it is told", || said(&node, "ResizeCompleted Pod resize completed: {") == 1).await;
    assert_eq!(said(&node, "ResizeStarted Pod resize started: {"), 1);
    let pod = node.api.pod("p").unwrap();
    assert_eq!(pod["status"]["resources"]["limits"], json!({"cpu": "300m", "memory": "192Mi"}));
    let updates = node.fake.count("UpdateContainerResources");
    assert_eq!(updates, 2, "memory, then cpu");

    // The next agent knows, although the container was created with less.
    drop(agent);
    let agent = start(&node);
    node.until("the agent knows the pod", || !agent.registry().entries().is_empty()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(has(&node, "p", "200m", "128Mi"));
    assert_eq!(node.fake.count("UpdateContainerResources"), updates);
    assert_eq!(said(&node, "ResizeCompleted"), 1);
    node.api.delete("p", 1);
    node.until("the pod is gone", || node.api.pod("p").is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_node_has_not_waits_until_it_has() {
    let node = Node::new("defer");
    let agent = start(&node);
    for name in ["p", "q"] {
        node.api.create(name, spec("400m", "64Mi", "NotRequired"));
        node.until("the pod is Ready", || has(&node, name, "400m", "64Mi")).await;
    }
    resize(&node, "p", "1200m", "64Mi");
    let waits = || condition(&node.api.pod("p").unwrap(), "PodResizePending");
    node.until("it waits", || waits().is_some()).await;
    let condition = waits().unwrap();
    assert_eq!((&condition["reason"], &condition["observedGeneration"]), (&json!("Deferred"), &json!(2)));
    let text = "Node didn't have enough resource: cpu, requested: 1600, used: 800, capacity: 2000";
    assert_eq!(condition["message"], text);
    // It still has what it had, also for the next agent.
    drop(agent);
    let agent = start(&node);
    node.until("the agent knows both", || agent.registry().entries().len() == 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let pod = node.api.pod("p").unwrap();
    assert_eq!(pod["status"]["containerStatuses"][0]["allocatedResources"]["cpu"], "400m");
    assert!(waits().is_some());
    assert_eq!(said(&node, "ResizeDeferred Pod resize Deferred: {"), 1);
    node.api.delete("q", 1);
    node.until("it has more", || has(&node, "p", "1200m", "64Mi")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_of_restarts_is_kept() {
    let node = Node::new("restart");
    let _agent = start(&node);
    node.api.create("p", spec("100m", "64Mi", "RestartContainer"));
    node.until("the pod is Ready", || has(&node, "p", "100m", "64Mi")).await;
    resize(&node, "p", "200m", "64Mi");
    node.until("it has more", || has(&node, "p", "200m", "64Mi")).await;
    let restarts = || {
        let pod = node.api.pod("p").unwrap();
        [0, 1].map(|index| pod["status"]["containerStatuses"][index]["restartCount"].as_i64().unwrap())
    };
    assert_eq!(restarts(), [1, 0]);
    assert_eq!(said(&node, "Killing Container c resize requires restart"), 1);
    // Memory has no such policy.
    resize(&node, "p", "200m", "128Mi");
    node.until("it has more memory", || has(&node, "p", "200m", "128Mi")).await;
    assert_eq!(restarts(), [1, 0]);
    assert_eq!(node.fake.count("UpdateContainerResources"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_fails_is_told_and_made_good() {
    let node = Node::new("error");
    let _agent = start(&node);
    node.api.create("p", spec("100m", "64Mi", "NotRequired"));
    node.until("the pod is Ready", || has(&node, "p", "100m", "64Mi")).await;
    let status = cri::fake::Status::internal("asked for by the test");
    node.fake.fail(cri::fake::Failure { effect: 0, after: false, status });
    resize(&node, "p", "200m", "64Mi");
    node.until("the failure is told", || said(&node, "ResizeError Pod resize error: {") == 1).await;
    node.until("it has more", || has(&node, "p", "200m", "64Mi")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kernel_keeps_the_new_limits() {
    let node = containerd::Node::start("resize").await;
    let api = crate::api::Api::new();
    let agent = node.agent(&api);
    let limits = |cpu: &str, memory: &str| json!({"limits": {"cpu": cpu, "memory": memory}});
    let mut spec = containerd::spec();
    spec["containers"][0]["resources"] = limits("100m", "32Mi");
    api.create("web", spec);
    let first = until_ready(&api, "web").await;
    let id = first["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
    let id = id.trim_start_matches("containerd://").to_owned();
    let in_force = || {
        let driver = cgroups::open(cgroups::detect::detect().unwrap()).unwrap();
        let tree = cgroups::Tree::new(&node.root);
        let uid = first["metadata"]["uid"].as_str().unwrap();
        let pod = driver.naming().relative(&tree.pod(cgroups::QosLevel::Guaranteed, uid));
        [pod.clone(), pod.join(&id)].map(|path| {
            let stats = driver.stats(&path, Depth::Full).unwrap();
            (stats.cpu.quota, stats.memory.limit.map(|limit| limit >> 20))
        })
    };
    assert_eq!(in_force(), [(Some(10_000), Some(32)); 2]);
    let change = |memory: &'static str| {
        api.update("web", |pod| pod["spec"]["containers"][0]["resources"] = limits("200m", memory));
    };
    change("64Mi");
    until("more is in force", async || (in_force() == [(Some(20_000), Some(64)); 2]).then_some(())).await;
    change("48Mi");
    until("less is in force", async || (in_force() == [(Some(20_000), Some(48)); 2]).then_some(())).await;
    // Less than is in use would be the end of it.
    change("4Ki");
    let error = until("the error is told", async || {
        condition(&api.pod("web")?, "PodResizeInProgress").filter(|told| told["reason"] == "Error")
    });
    let message = error.await["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("cannot decrease memory limits: [attempting to set pod memory limit (4096) below"));
    assert_eq!(in_force(), [(Some(20_000), Some(48)); 2]);
    let last = api.pod("web").unwrap();
    assert_eq!(last["status"]["containerStatuses"][0]["restartCount"], 0);
    api.delete("web", 1);
    until("the pod is gone", async || api.pod("web").is_none().then_some(())).await;
    drop(agent);
}
