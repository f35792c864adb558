//! An agent that is started while the API server is away, on a runtime in memory: it goes on with the pods that were
//! known, and does not decide about others.

use serde_json::json;

use crate::disturbed::{Node, ready};

fn spec() -> serde_json::Value {
    json!({
        "terminationGracePeriodSeconds": 1, "restartPolicy": "Always",
        "containers": [{"name": "c", "image": "example.com/web:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "configMap": {"name": "settings"}}]
    })
}

fn restarts(node: &Node, name: &str) -> i64 {
    let pod = node.api.pod(name).unwrap_or_default();
    pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(-1)
}

fn running(node: &Node) -> usize {
    node.fake
        .containers()
        .iter()
        .filter(|container| container.state == cri::v1::ContainerState::ContainerRunning)
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_pods_go_on_without_an_api_server() {
    let node = Node::new("away");
    node.api.config_map("settings", json!({"a": "content of a ConfigMap"}), false);
    let agent = node.agent();
    for name in ["p", "q"] {
        node.api.create(name, spec());
        node.until("the pod is Ready", || node.api.pod(name).is_some_and(|pod| ready(&pod))).await;
    }
    let checkpoint = |name: &str| {
        let uid = format!("{name}-{}", std::process::id());
        std::fs::read_to_string(node.data().join("pods").join(uid).join("pod.json")).unwrap_or_default()
    };
    let is_running = |name: &str| checkpoint(name).contains("\"phase\":\"Running\"");
    node.until("both are written down", || is_running("p") && is_running("q")).await;
    assert!(checkpoint("p").contains("\"version\":1") && !checkpoint("p").contains("content of"));

    node.api.set_away(true);
    drop(agent);
    node.api.remove("q");
    let containers = node.fake.containers();
    let of = |name: &str| {
        let pod = |c: &cri::fake::Container| c.config.labels["io.kubernetes.pod.name"] == name;
        containers.iter().find(|c| pod(c)).unwrap().id.clone()
    };
    let agent = node.agent();
    node.until("the agent knows both", || agent.registry().entries().len() == 2).await;
    node.fake.exit(&of("p"), 1);
    node.until("its container runs again", || node.fake.containers().len() == 3 && running(&node) == 2).await;
    // Volumes stay as they were, too.
    let uid = format!("p-{}", std::process::id());
    let file = node.data().join("pods").join(uid).join("volumes/kubernetes.io~configmap/v/a");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "content of a ConfigMap");

    node.api.set_away(false);
    node.until("the restart is told", || restarts(&node, "p") == 1).await;
    node.until("what was deleted meanwhile is gone", || running(&node) == 1 && node.fake.sandboxes().len() == 1).await;
    assert!(node.api.pod("p").is_some_and(|pod| ready(&pod)));
    node.api.delete("p", 1);
    node.until("the pod is gone", || node.api.pod("p").is_none()).await;
    let pods = node.data().join("pods");
    let no_folder = || std::fs::read_dir(&pods).is_ok_and(|mut entries| entries.next().is_none());
    node.until("there is no folder", no_folder).await;
    drop(agent);
}
