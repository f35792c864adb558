//! A node that is short of something, on a runtime in memory.

use std::time::Duration;

use agent::eviction::threshold::{Amount, Signal, Threshold};
use cri::fake::Program;
use serde_json::{Value, json};

use crate::disturbed::Node;

fn spec(priority: i32) -> Value {
    json!({
        "priority": priority, "terminationGracePeriodSeconds": 600, "nodeName": "node",
        "containers": [{"name": "c", "image": "example.com/app:1", "resources": {"requests": {"cpu": "1m"}}}],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_evicted_and_told_why_and_a_critical_one_stays() {
    let node = Node::new("pressure");
    // Who ends well when told to has not failed.
    node.fake.program("c", Program { on_term: None, ..Program::default() });
    for (name, priority) in [("usual", 5), ("critical", 2_000_000_000)] {
        node.api.create(name, spec(priority));
    }
    let _agent = node.agent_with(|config| {
        config.allocatable.insert("cpu".to_owned(), "2".parse().unwrap());
        config.eviction.thresholds = vec![Threshold {
            signal: Signal::Memory,
            // The node's facts say that it has no memory at all.
            value: Amount::Quantity("100Mi".parse().unwrap()),
            grace: Duration::ZERO,
            min_reclaim: None,
        }];
    });
    let status = |name: &str| node.api.pod(name).map(|pod| pod["status"].clone()).unwrap_or_default();
    node.until("the usual pod is evicted", || status("usual")["phase"] == "Failed").await;
    let evicted = status("usual");
    assert_eq!(evicted["reason"], "Evicted");
    let message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 0. ";
    assert_eq!(evicted["message"], message);
    let conditions = evicted["conditions"].as_array().unwrap();
    let disrupted = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&disrupted["reason"], &disrupted["message"]), (&json!("TerminationByKubelet"), &json!(message)));
    node.until("the critical pod runs", || status("critical")["phase"] == "Running").await;

    // While the node is short, a pod that asks for nothing is not taken.
    let mut best_effort = spec(0);
    best_effort["containers"][0]["resources"] = json!({});
    node.api.create("best-effort", best_effort);
    node.until("it is refused", || status("best-effort")["phase"] == "Failed").await;
    assert_eq!(status("best-effort")["message"], "Pod was rejected: The node had condition: [MemoryPressure]. ");
    assert_eq!(status("critical")["phase"], "Running");
}
