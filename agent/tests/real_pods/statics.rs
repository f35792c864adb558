//! Static pods on a runtime in memory: they need no API server, and are shown at it when there is one.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::disturbed::{Node, ready};

const NAME: &str = "web-node";

fn write(node: &Node, image: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "test"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": image}]}
    });
    // As an editor does it.
    let hidden = node.manifests().join(".web.yaml");
    std::fs::write(&hidden, pod.to_string()).unwrap();
    std::fs::rename(hidden, node.manifests().join("web.yaml")).unwrap();
}

fn mirror(node: &Node) -> Option<Value> {
    node.api.pod(NAME).filter(ready)
}

fn images(node: &Node) -> Vec<String> {
    let running = node.fake.containers().into_iter().filter(|c| c.state == cri::v1::ContainerState::ContainerRunning);
    running.filter_map(|c| c.config.image.map(|image| image.user_specified_image)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_runs_without_an_api_server_and_is_shown_when_there_is_one() {
    let node = Node::new("static");
    std::fs::create_dir_all(node.manifests()).unwrap();
    node.api.set_away(true);
    write(&node, "example.com/web:1");
    let agent = node.agent();
    node.until("it runs", || images(&node) == ["example.com/web:1"]).await;
    drop(agent);
    let _agent = node.agent();
    node.api.set_away(false);
    node.until("the mirror is Ready", || mirror(&node).is_some()).await;
    assert_eq!(node.fake.containers().len(), 1, "an agent that begins leaves it alone");
    let first = mirror(&node).unwrap();
    let meta = &first["metadata"];
    assert_eq!(meta["annotations"]["kubernetes.io/config.source"], "file");
    assert_eq!(meta["annotations"]["kubernetes.io/config.mirror"], meta["annotations"]["kubernetes.io/config.hash"]);
    assert_eq!(meta["ownerReferences"][0]["uid"], "node-uid");

    // Whoever deletes the mirror deletes nothing else.
    node.api.delete(NAME, 30);
    let again = || mirror(&node).filter(|mirror| mirror["metadata"]["uid"] != meta["uid"]);
    node.until("there is another mirror", || again().is_some()).await;
    node.api.remove(NAME);
    node.until("and another", || mirror(&node).is_some()).await;
    assert_eq!(node.fake.containers().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_changes_is_another_pod_and_one_that_goes_leaves_nothing() {
    let node = Node::new("changing");
    std::fs::create_dir_all(node.manifests()).unwrap();
    let _agent = node.agent();
    write(&node, "example.com/web:1");
    node.until("the mirror is Ready", || mirror(&node).is_some()).await;
    let hash = |mirror: &Value| mirror["metadata"]["annotations"]["kubernetes.io/config.hash"].clone();
    let first = hash(&mirror(&node).unwrap());
    write(&node, "example.com/web:2");
    node.until("the mirror shows the new one", || mirror(&node).is_some_and(|mirror| hash(&mirror) != first)).await;
    assert_eq!(images(&node), ["example.com/web:2"]);
    std::fs::remove_file(node.manifests().join("web.yaml")).unwrap();
    node.until("the mirror is gone", || node.api.pod(NAME).is_none()).await;
    node.until("the runtime has nothing", || node.fake.sandboxes().is_empty() && node.fake.containers().is_empty())
        .await;
}

/// Upstream's e2e_node: "should successfully recreate when file is removed and recreated".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_is_written_anew_at_once_is_a_restart() {
    let node = Node::new("anew");
    std::fs::create_dir_all(node.manifests()).unwrap();
    let _agent = node.agent();
    write(&node, "example.com/web:1");
    node.until("the mirror is Ready", || mirror(&node).is_some()).await;
    let first = mirror(&node).unwrap();
    let container = || node.api.pod(NAME).map(|mirror| mirror["status"]["containerStatuses"][0].clone());
    for restarts in 1..=2 {
        std::fs::remove_file(node.manifests().join("web.yaml")).unwrap();
        write(&node, "example.com/web:1");
        let restarted = |container: Value| container["restartCount"] == restarts && container["ready"] == true;
        node.until("it was restarted", || container().is_some_and(restarted)).await;
        assert!(!container().unwrap()["lastState"]["terminated"].is_null());
    }
    let last = node.api.pod(NAME).unwrap();
    assert_eq!(last["metadata"]["uid"], first["metadata"]["uid"], "the mirror stays");
    std::fs::remove_file(node.manifests().join("web.yaml")).unwrap();
    node.until("the mirror is gone", || node.api.pod(NAME).is_none()).await;
    node.until("the runtime has nothing", || node.fake.sandboxes().is_empty() && node.fake.containers().is_empty())
        .await;
}

/// Makes a file such that nobody can remove it, or lets it go.
fn hold(file: &Path, held: bool) {
    let flag = if held { "+i" } else { "-i" };
    assert!(std::process::Command::new("chattr").arg(flag).arg(file).status().unwrap().success());
}

/// Upstream's e2e_node: "it should launch successfully even if it temporarily failed termination due to volume failing to unmount", whose
/// server of NFS went away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_whose_volume_cannot_be_removed_at_first_is_gone_once_it_can() {
    let node = Node::new("held");
    std::fs::create_dir_all(node.manifests()).unwrap();
    let _agent = node.agent();
    write(&node, "example.com/web:1");
    node.until("the mirror is Ready", || mirror(&node).is_some()).await;
    let uid =
        mirror(&node).unwrap()["metadata"]["annotations"]["kubernetes.io/config.hash"].as_str().unwrap().to_owned();
    let folder = node.data().join("pods").join(uid);
    let file = folder.join("held");
    std::fs::write(&file, "").unwrap();
    hold(&file, true);
    std::fs::remove_file(node.manifests().join("web.yaml")).unwrap();
    node.until("the runtime has nothing", || node.fake.sandboxes().is_empty() && node.fake.containers().is_empty())
        .await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(file.exists() && node.api.pod(NAME).is_some(), "it has not ended");
    hold(&file, false);
    node.until("its folder is gone", || !folder.exists()).await;
    node.until("the mirror is gone", || node.api.pod(NAME).is_none()).await;
    write(&node, "example.com/web:1");
    node.until("it runs again", || mirror(&node).is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_removed_while_no_agent_ran_is_ended() {
    let node = Node::new("forgotten");
    std::fs::create_dir_all(node.manifests()).unwrap();
    write(&node, "example.com/web:1");
    let agent = node.agent();
    node.until("the mirror is Ready", || mirror(&node).is_some()).await;
    drop(agent);
    std::fs::remove_file(node.manifests().join("web.yaml")).unwrap();
    let _agent = node.agent();
    node.until("the mirror is gone", || node.api.pod(NAME).is_none()).await;
    node.until("the runtime has nothing", || node.fake.sandboxes().is_empty() && node.fake.containers().is_empty())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_pod_takes_the_place_of_another() {
    let node = Node::new("preempting");
    std::fs::create_dir_all(node.manifests()).unwrap();
    let _agent = node.agent();
    // The node takes ten pods.
    let names: Vec<_> = (0..10).map(|n| format!("p{n}")).collect();
    for name in &names {
        let container = json!({"name": "c", "image": "example.com/web:0"});
        node.api.create(name, json!({"terminationGracePeriodSeconds": 1, "containers": [container]}));
    }
    let all_ready = || names.iter().all(|name| node.api.pod(name).is_some_and(|pod| ready(&pod)));
    node.until("the node is full", all_ready).await;
    write(&node, "example.com/web:1");
    node.until("the static pod runs", || mirror(&node).is_some()).await;
    let ended = || -> Vec<_> {
        let pods = names.iter().filter_map(|name| node.api.pod(name));
        pods.filter(|pod| pod["status"]["phase"] != "Running").collect()
    };
    node.until("an end is told", || !ended().is_empty()).await;
    let ended = ended();
    let [victim] = ended.as_slice() else { panic!("{ended:?}") };
    // Its container ended well when it was told to.
    assert_eq!((&victim["status"]["phase"], &victim["status"]["reason"]), (&json!("Succeeded"), &Value::Null));
    assert!(node.api.events().contains(&"Preempting Preempted in order to admit critical pod".to_owned()));
    let conditions = victim["status"]["conditions"].as_array().unwrap();
    let disruption = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget").unwrap();
    assert_eq!(disruption["reason"], "TerminationByKubelet");
    let left = || node.fake.containers().len();
    node.until("what it wrote is gone", || left() == names.len()).await;
}

/// The machine of an agent before this one went down, or that agent refused the pod.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_says_failed_keeps_no_static_pod_from_running() {
    let node = Node::new("failed");
    std::fs::create_dir_all(node.manifests()).unwrap();
    write(&node, "example.com/web:1");
    let agent = node.agent();
    node.until("the mirror is Ready", || mirror(&node).is_some()).await;
    drop(agent);
    let fail = |status: &mut Value| *status = json!({"phase": "Failed", "reason": "Terminated"});
    node.api.write_status(NAME, fail);
    let agent = node.agent();
    node.until("the mirror is Ready again", || mirror(&node).is_some()).await;
    drop(agent);
    // With an API server that comes later, the pod runs before its mirror is seen.
    node.api.write_status(NAME, fail);
    node.api.set_away(true);
    let _agent = node.agent();
    tokio::time::sleep(Duration::from_millis(500)).await;
    node.api.set_away(false);
    node.until("the mirror is Ready once more", || mirror(&node).is_some()).await;
    let told = mirror(&node).unwrap();
    assert_eq!((&told["status"]["phase"], &told["status"]["reason"]), (&json!("Running"), &Value::Null));
    assert_eq!((images(&node).len(), node.fake.containers().len()), (1, 1), "it ran on all the time");
}
