//! Pods that others ended, on a runtime in memory.

use std::time::{Duration, Instant};

use cri::fake::Program;
use serde_json::{Value, json};

use crate::disturbed::{Node, ready};

fn spec() -> Value {
    json!({"terminationGracePeriodSeconds": 600, "containers": [{"name": "c", "image": "example.com/web:1"}]})
}

async fn up(node: &Node) {
    node.api.create("p", spec());
    node.until("the pod is Ready", || node.api.pod("p").is_some_and(|pod| ready(&pod))).await;
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
