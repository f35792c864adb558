//! Level 3: workers against a runtime in memory, disturbed at every step of a pod's whole life, as root for its cgroups.
//!
//! A life: an init container and two containers are created, the pod gets Ready, is deleted, and is gone. For every k the
//! k-th effect fails before or after it took place, or the agent ends in the middle of it and another begins. In the end
//! nothing is left, and no container has run twice.

use std::collections::BTreeMap;
use std::time::Duration;

use agent::pods::{PodsConfig, PodsHandle};
use cri::fake::{Failure, Fake, Program, Status};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::api::Api;
use crate::node::{config, start};

/// More lives at a time would only wait for each other.
const AT_A_TIME: usize = 24;

pub struct Node {
    name: String,
    folder: tempfile::TempDir,
    pub fake: Fake,
    pub api: Api,
}

impl Node {
    pub fn new(name: &str) -> Self {
        systemd::logging::install("tests", "RUST_LOG", "error", true);
        let fake = Fake::default();
        fake.program("init", Program { ends: Some((Duration::from_millis(5), 0)), ..Program::default() });
        let folder = tempfile::Builder::new().prefix("kd").tempdir().unwrap();
        Self { name: format!("keelson-disturbed-{name}-{}", std::process::id()), folder, fake, api: Api::new() }
    }

    /// Where its static pods are described.
    pub fn manifests(&self) -> std::path::PathBuf {
        self.folder.path().join("manifests")
    }

    /// Its volumes, and what else the agent keeps on the disk.
    pub fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    pub fn agent(&self) -> PodsHandle {
        self.agent_with(|_| ())
    }

    /// An agent that is configured otherwise.
    pub fn agent_with(&self, change: impl FnOnce(&mut PodsConfig)) -> PodsHandle {
        let mut config = config(self.folder.path(), &self.name);
        change(&mut config);
        start(config, self.api.client(), self.fake.client())
    }

    /// Until the pod is Ready.
    async fn up(&self) {
        self.until("the pod is Ready", || self.api.pod("p").is_some_and(|pod| ready(&pod))).await;
        let mut runs = BTreeMap::<_, usize>::new();
        for container in self.fake.containers().iter().filter(|container| container.started_at > 0) {
            *runs.entry(container.name().to_owned()).or_default() += 1;
        }
        let once = ["a", "b", "init"].map(|name| (name.to_owned(), 1));
        assert_eq!(runs, once.into(), "{}: each container has run once", self.name);
    }

    /// Until nothing is left.
    async fn down(&self) {
        self.until("the pod is gone", || self.api.pod("p").is_none()).await;
        let empty = || self.fake.containers().is_empty() && self.fake.sandboxes().is_empty();
        self.until("the runtime has nothing", empty).await;
        for folder in [self.data().join("pods"), self.folder.path().join("logs")] {
            let is_empty = || std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_none());
            self.until(&format!("{} is empty", folder.display()), is_empty).await;
        }
        let tree = cgroups::Tree::new(&self.name);
        let driver = cgroups::open(cgroups::detect::detect().unwrap()).unwrap();
        let no_cgroup = || cgroups::driver::pods(driver.as_ref(), &tree).unwrap().is_empty();
        self.until("there is no cgroup", no_cgroup).await;
    }

    pub async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        for _ in 0..4000 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let calls: Vec<_> = self.fake.calls().into_iter().map(|call| call.rpc).collect();
        panic!("{}: waited too long until {what}: {calls:?} {:?}", self.name, self.api.pod("p"));
    }

    /// A pod's whole life with one agent.
    async fn life(&self) {
        let _agent = self.agent();
        self.api.create("p", spec());
        self.up().await;
        self.api.delete("p", 1);
        self.down().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let driver = cgroups::open(cgroups::detect::detect().unwrap()).unwrap();
        drop(driver.destroy(cgroups::Tree::new(&self.name).root()));
    }
}

pub fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

fn spec() -> Value {
    let container = |name: &str| json!({"name": name, "image": format!("example.com/{name}:1")});
    json!({
        "terminationGracePeriodSeconds": 1, "restartPolicy": "Always",
        "initContainers": [container("init")], "containers": [container("a"), container("b")]
    })
}

async fn all<F: Future<Output = ()>>(lives: impl Iterator<Item = F>) {
    futures::stream::iter(lives).for_each_concurrent(AT_A_TIME, |life| life).await;
}

/// The effects of a life that nothing disturbs.
async fn effects() -> usize {
    let node = Node::new("calm");
    node.life().await;
    let effects = node.fake.effects();
    assert!(effects >= 13, "sandbox, pulls, creates, starts, stops, removes: {effects}");
    effects
}

fn each(effects: usize) -> impl Iterator<Item = (usize, bool)> {
    (0..effects).flat_map(|effect| [(effect, false), (effect, true)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_to_the_runtime_that_fails_is_made_good() {
    let lives = each(effects().await).map(|(effect, after)| async move {
        let node = Node::new(&format!("fail-{effect}-{after}"));
        node.fake.fail(Failure { effect, after, status: Status::unavailable("asked for by the test") });
        node.life().await;
    });
    all(lives).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_ends_in_the_middle_of_a_call_is_no_loss() {
    let lives = each(effects().await).map(|(effect, after)| async move {
        let node = Node::new(&format!("crash-{effect}-{after}"));
        let reached = node.fake.hang(effect, after);
        let agent = node.agent();
        node.api.create("p", spec());
        let interrupted = async {
            reached.await;
            drop(agent);
            node.agent()
        };
        let life = async {
            node.up().await;
            node.api.delete("p", 1);
            node.down().await;
        };
        // The agent of the second life is kept until the end.
        tokio::select! {
            () = life => {}
            () = hold(interrupted) => {}
        }
    });
    all(lives).await;
}

/// Keeps what a future made.
async fn hold<T>(future: impl Future<Output = T>) {
    let _kept = future.await;
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_to_the_api_server_that_fails_is_made_good() {
    let lives = each(6).map(|(write, after)| async move {
        let node = Node::new(&format!("api-{write}-{after}"));
        node.api.fail(write, after);
        node.life().await;
    });
    all(lives).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_panics_has_failed_and_is_tried_again() {
    let node = Node::new("panic");
    let _agent = node.agent();
    let mut spec = spec();
    // It is asked for when the sandbox is made.
    spec["runtimeClassName"] = "special".into();
    node.api.trap("/runtimeclasses/special");
    node.api.create("p", spec);
    node.until("the trap has sprung", || !node.api.is_armed()).await;
    let told = "FailedCreatePodSandBox Failed to create pod sandbox: internal error: the job panicked";
    let waiting = || node.api.events().iter().any(|event| event == told);
    node.until("the failure is told", waiting).await;
    node.up().await;
    node.api.delete("p", 1);
    node.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_deleted_while_its_image_is_pulled_is_gone_without_it() {
    let node = Node::new("pulling");
    // The first effect is the sandbox.
    let reached = node.fake.hang(1, false);
    let _agent = node.agent();
    node.api.create("p", spec());
    reached.await;
    assert_eq!(node.fake.calls().iter().filter(|call| call.rpc == "PullImage").count(), 1);
    node.api.delete("p", 1);
    node.down().await;
}

/// The last look at the runtime still has it then: that makes no orphan of it, which would be ended again and again until the next look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_gone_is_let_go() {
    let node = Node::new("gone");
    let _agent = node.agent();
    node.api.create("p", spec());
    node.up().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.api.delete("p", 1);
    node.down().await;
    let then = node.fake.calls().len();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls: Vec<_> = node.fake.calls().into_iter().skip(then).map(|call| call.rpc).collect();
    assert!(calls.len() < 20, "{calls:?}");
}
