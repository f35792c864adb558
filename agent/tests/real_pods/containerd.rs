//! Pod workers against a containerd of their own, as root: a pod's whole life, and restarts of the agent in it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use agent::pods::PodsHandle;
use cri::import::{Image, ImageConfig, import};
use serde_json::{Value, json};

use crate::api::Api;
use crate::node::{config, start};

const IMAGE: &str = "example.com/pause:test";

pub struct Node {
    folder: tempfile::TempDir,
    containerd: Child,
    runtime: cri::Client,
    pub root: String,
}

impl Node {
    pub async fn start(name: &str) -> Self {
        systemd::logging::install("tests", "RUST_LOG", "error", true);
        let folder = tempfile::Builder::new().prefix("kl").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.internal.v1.opt\"]\n\
             [grpc]\n  address = {:?}\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"{IMAGE}\"\n  \
             restrict_oom_score_adj = true\n  netns_mounts_under_state_dir = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n",
            at("root"),
            at("state"),
            at("sock"),
        );
        std::fs::write(at("config.toml"), config).unwrap();
        let log = std::fs::File::create(at("log")).unwrap();
        let containerd = Command::new("containerd")
            .arg("--config")
            .arg(at("config.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd is installed");
        let runtime = cri::Client::new(&format!("unix://{}", at("sock").display())).unwrap();
        until("containerd answers", async || runtime.version(cri::v1::VersionRequest::default()).await.ok()).await;
        let config = ImageConfig { entrypoint: vec!["/pause".into()], ..ImageConfig::default() };
        import(&runtime, &Image::from_layer(IMAGE, &config, pause::layer().unwrap())).await.unwrap();
        let root = format!("keelson-pods-{name}-{}", std::process::id());
        Self { folder, containerd, runtime, root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn agent(&self, api: &Api) -> PodsHandle {
        start(config(self.folder.path(), &self.root), api.client(), self.runtime.clone())
    }

    async fn counts(&self) -> (usize, usize) {
        let sandboxes = self.runtime.list_pod_sandbox(cri::v1::ListPodSandboxRequest { filter: None }).await.unwrap();
        let containers = self.runtime.list_containers(cri::v1::ListContainersRequest { filter: None }).await.unwrap();
        (sandboxes.items.len(), containers.containers.len())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let tree = cgroups::Tree::new(&self.root);
        let driver = cgroups::open(cgroups::detect::detect().unwrap()).unwrap();
        drop(driver.destroy(tree.root()));
        std::thread::sleep(Duration::from_millis(200));
        drop(self.containerd.kill());
        drop(self.containerd.wait());
        unmount_below(self.folder.path());
    }
}

fn unmount_below(path: &Path) {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut points: Vec<_> =
        text.lines().filter_map(|line| line.split(' ').nth(4)).filter(|p| Path::new(p).starts_with(path)).collect();
    points.reverse();
    for point in points {
        drop(Command::new("umount").arg("-l").arg(point).status());
    }
}

pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1500 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited too long until {what}");
}

fn ready(pod: &Value) -> bool {
    pod["status"]["conditions"]
        .as_array()
        .is_some_and(|list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

pub fn spec() -> Value {
    json!({
        "hostNetwork": true, "terminationGracePeriodSeconds": 2, "restartPolicy": "Always",
        "containers": [{
            "name": "c", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
            "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"memory": "32Mi"}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "m", "mountPath": "/m", "subPath": "deep/er"}]
        }],
        "volumes": [
            {"name": "v", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"name": "m", "emptyDir": {"medium": "Memory"}}
        ]
    })
}

fn container(pod: &Value) -> (String, i64) {
    let status = &pod["status"]["containerStatuses"][0];
    (status["containerID"].as_str().unwrap_or_default().to_owned(), status["restartCount"].as_i64().unwrap_or(-1))
}

pub async fn until_ready(api: &Api, name: &str) -> Value {
    until("the pod is Ready", async || api.pod(name).filter(ready)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_lives_through_restarts_of_the_agent_and_leaves_nothing() {
    let node = Node::start("life").await;
    let api = Api::new();
    let agent = node.agent(&api);
    api.create("web", spec());
    let first = until_ready(&api, "web").await;
    assert_eq!(first["status"]["phase"], "Running");
    assert_eq!(container(&first).1, 0);
    assert!(first["status"]["startTime"].is_string());

    // The agent ends and another begins: the container is the same, and nothing new is made.
    drop(agent);
    let agent = node.agent(&api);
    until("the agent knows the pod", async || Some(()).filter(|()| !agent.registry().entries().is_empty())).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(container(&until_ready(&api, "web").await), container(&first));
    assert_eq!(node.counts().await, (1, 1));

    // The container dies while the API server is away: it is started again all the same, and the status follows.
    api.set_away(true);
    let id = container(&first).0.trim_start_matches("containerd://").to_owned();
    node.runtime.stop_container(&id, 0).await.unwrap();
    until("there is another container", async || (node.counts().await.1 == 2).then_some(())).await;
    api.set_away(false);
    let second =
        until("the restart is counted", async || api.pod("web").filter(|pod| ready(pod) && container(pod).1 == 1))
            .await;
    assert_ne!(container(&second).0, container(&first).0);

    api.delete("web", 2);
    until("the pod is gone", async || api.pod("web").is_none().then_some(())).await;
    assert_eq!(node.counts().await, (0, 0));
    assert!(std::fs::read_dir(node.path("data/pods")).unwrap().next().is_none());
    until("the worker has ended", async || agent.registry().entries().is_empty().then_some(())).await;
    for wanted in ["Pulled", "Created Container created", "Started Container started", "Killing Stopping container c"] {
        until(wanted, async || api.events().iter().any(|event| event.starts_with(wanted)).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_nobody_wants_are_ended_only_after_the_api_server_said_so() {
    let node = Node::start("orphan").await;
    let api = Api::new();
    let agent = node.agent(&api);
    api.create("web", spec());
    until_ready(&api, "web").await;
    drop(agent);

    let empty = Api::new();
    empty.set_away(true);
    let agent = node.agent(&empty);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(node.counts().await, (1, 1));
    empty.set_away(false);
    until("the orphan is gone", async || (node.counts().await == (0, 0)).then_some(())).await;
    until("its folder too", async || std::fs::read_dir(node.path("data/pods")).unwrap().next().is_none().then_some(()))
        .await;
    drop(agent);
}
