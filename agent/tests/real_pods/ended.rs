//! Pods that others ended, on a runtime in memory.

use std::time::{Duration, Instant};

use cri::fake::Program;
use cri::v1::ContainerState;
use serde_json::{Value, json};

use crate::disturbed::{Node, ready};

fn spec() -> Value {
    json!({"terminationGracePeriodSeconds": 600, "containers": [{"name": "c", "image": "example.com/web:1"}]})
}

async fn up(node: &Node) {
    node.api.create("p", spec());
    node.until("the pod is Ready", || node.api.pod("p").is_some_and(|pod| ready(&pod))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_write_over_is_told_again_and_an_end_is_final() {
    let node = Node::new("overwritten");
    let _agent = node.agent();
    up(&node).await;
    let status = |field: &str| node.api.pod("p").map(|pod| pod["status"][field].clone()).unwrap_or_default();
    node.api.write_status("p", |status| status["phase"] = "Pending".into());
    node.until("the phase is right again", || status("phase") == "Running").await;
    let ip = status("podIP");
    node.api.write_status("p", |status| status["podIP"] = "10.255.0.1".into());
    node.until("the address is right again", || status("podIP") == ip).await;

    node.api.write_status("p", |status| {
        status["phase"] = "Failed".into();
        status["reason"] = "Lost".into();
    });
    let ended = || status("containerStatuses")[0]["state"]["terminated"].is_object();
    node.until("its container has ended", ended).await;
    assert_eq!((status("phase"), status("reason")), ("Failed".into(), "Lost".into()));
    let states: Vec<_> = node.fake.containers().iter().map(|container| container.state).collect();
    assert_eq!(states, [ContainerState::ContainerExited], "none is started anew");
}

/// One that was deleted by force: nobody knows how much time it was to have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_only_the_runtime_knows_gets_a_second() {
    let node = Node::new("orphan");
    node.fake.program("c", Program { on_term: None, ..Program::default() });
    let agent = node.agent();
    up(&node).await;
    drop(agent);
    node.api.remove("p");
    let begun = Instant::now();
    let _agent = node.agent();
    node.until("the runtime has nothing", || node.fake.sandboxes().is_empty() && node.fake.containers().is_empty())
        .await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}: a pod's usual time is 30 s", begun.elapsed());
}
