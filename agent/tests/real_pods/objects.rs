//! ConfigMaps of running pods on a runtime in memory: followed while a pod has them in its volumes, and no longer.

use serde_json::json;

use crate::disturbed::{Node, ready};

fn spec(config_map: &str) -> serde_json::Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "c", "image": "example.com/web:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "configMap": {"name": config_map}}]
    })
}

/// What a pod has in its volume under a key.
fn content(node: &Node, pod: &str, key: &str) -> Option<String> {
    let uid = format!("{pod}-{}", std::process::id());
    let volume = node.data().join("pods").join(uid).join("volumes/kubernetes.io~configmap/v");
    std::fs::read_to_string(volume.join(key)).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_every_pod_that_has_it() {
    let node = Node::new("objects");
    node.api.config_map("settings", json!({"a": "1"}), false);
    let _agent = node.agent();
    for pod in ["p", "q"] {
        node.api.create(pod, spec("settings"));
        node.until("the pod is Ready", || node.api.pod(pod).is_some_and(|pod| ready(&pod))).await;
        assert_eq!(content(&node, pod, "a").as_deref(), Some("1"));
    }
    assert_eq!(node.api.config_map_watches(), 1);
    node.api.config_map("settings", json!({"a": "2", "b": "3"}), false);
    for pod in ["p", "q"] {
        node.until("the change is there", || content(&node, pod, "a").as_deref() == Some("2")).await;
        assert_eq!(content(&node, pod, "b").as_deref(), Some("3"));
    }
    // From now on it will not change, and nobody looks.
    node.api.config_map("settings", json!({"a": "4"}), true);
    node.until("the last change is there", || content(&node, "p", "a").as_deref() == Some("4")).await;
    node.until("nobody looks", || node.api.config_map_watches() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_missing_starts_the_pod_when_it_comes() {
    let node = Node::new("missing");
    let _agent = node.agent();
    node.api.create("p", spec("later"));
    let told = || node.api.events().iter().any(|event| event.contains("configmap \"later\" not found"));
    node.until("that it is missing is told", told).await;
    node.api.config_map("later", json!({"a": "1"}), false);
    node.until("the pod is Ready", || node.api.pod("p").is_some_and(|pod| ready(&pod))).await;
    node.api.delete("p", 1);
    node.until("the pod is gone", || node.api.pod("p").is_none()).await;
    node.until("nobody looks", || node.api.config_map_watches() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_running_pod_loses_is_told_and_stays_in_its_volume() {
    let node = Node::new("lost");
    node.api.config_map("settings", json!({"a": "1"}), false);
    let _agent = node.agent();
    node.api.create("p", spec("settings"));
    node.until("the pod is Ready", || node.api.pod("p").is_some_and(|pod| ready(&pod))).await;
    node.api.remove_config_map("settings");
    let text = "MountVolume.SetUp failed for volume \"v\" : configmap \"settings\" not found";
    node.until("it is told", || node.api.events().iter().any(|event| event.contains(text))).await;
    assert_eq!(content(&node, "p", "a").as_deref(), Some("1"));
}

fn with_variables(config_map: &str, image: &str) -> serde_json::Value {
    let from = json!([{"configMapRef": {"name": config_map}}]);
    json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": image, "envFrom": from}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pulled_whatever_else_is_missing() {
    let node = Node::new("pulled");
    let _agent = node.agent();
    node.api.create("p", with_variables("later", "example.com/web:1"));
    node.api.create("q", with_variables("later", "example.com/missing:1"));
    let waits = |pod: &str, reason: &str| {
        let pod = node.api.pod(pod).unwrap_or_default();
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
    };
    node.until("what is missing is told", || waits("p", "CreateContainerConfigError")).await;
    assert!(node.api.events().iter().any(|event| event.contains("Successfully pulled image \"example.com/web:1\"")));
    node.until("the wrong image is told", || waits("q", "ErrImagePull") || waits("q", "ImagePullBackOff")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_are_known_while_nobody_can_be_asked() {
    let node = Node::new("variables");
    node.api.config_map("settings", json!({"a": "1"}), false);
    let _agent = node.agent();
    node.api.create("p", with_variables("settings", "example.com/web:1"));
    node.until("the pod is Ready", || node.api.pod("p").is_some_and(|pod| ready(&pod))).await;
    node.api.set_away(true);
    let first = node.fake.containers()[0].id.clone();
    node.fake.exit(&first, 1);
    let runs = || {
        let running = cri::v1::ContainerState::ContainerRunning;
        node.fake.containers().iter().any(|container| container.id != first && container.state == running)
    };
    node.until("its container runs again", runs).await;
}
