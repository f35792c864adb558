//! This machine as a Node object: registration, status, lease.
//!
//! One task owns the Node: it looks at the machine every `nodeStatusUpdateFrequency`, patches the status when something
//! changed or `nodeStatusReportFrequency` has passed, and registers anew when the Node is gone. A second task keeps the
//! lease. Both only read their inputs when they are due, so an API server that is away costs no memory.

pub mod conditions;
pub mod facts;
mod lease;
pub mod own;
mod patch;
pub mod resources;
pub mod runtime;
mod status;
mod system_oom;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::client::backoff::Backoff;
use crate::client::watch::describe;
use crate::client::{api_code, is_not_found};
use crate::config::Config;
use crate::events::{Kind, Recorder, node_reference};
use crate::eviction::Pressures;
use crate::shutdown;
use crate::tasks::Tasks;
use conditions::Observed;
use facts::Facts;
use lease::LeaseKeeper;

/// Until a node is Ready it looks this often, so that a pod network that has just come up is seen at once.
const UNREADY_LOOK: Duration = Duration::from_millis(500);
/// How many such looks there are, before the normal pace.
const UNREADY_LOOKS: u32 = 240;

/// What the node's task needs.
pub struct NodeInputs {
    /// Configuration.
    pub config: Arc<Config>,
    /// The API server.
    pub client: kube::Client,
    /// The container runtime.
    pub runtime: cri::Client,
    /// For `Starting`, `NodeReady` and their like.
    pub recorder: Recorder,
    /// What the node is short of.
    pub pressures: watch::Receiver<Pressures>,
    /// Whether the machine shuts down.
    pub shutting_down: shutdown::Receiver,
    /// The Node as the API server has it.
    pub own: own::Receiver,
}

/// A handle on the running tasks, which end when it is dropped.
#[derive(Debug)]
pub struct NodeHandle {
    /// The addresses that the Node has; empty until they are known. The serving certificate is for these.
    pub addresses: watch::Receiver<Vec<IpAddr>>,
    /// The Node's uid, once it is registered.
    pub uid: watch::Receiver<Option<String>>,
    look: Arc<Notify>,
    pub(crate) tasks: Tasks,
}

impl NodeHandle {
    /// Something that the status shows has changed (the pod network came up, an image was pulled): look now.
    #[must_use]
    pub fn look(&self) -> Arc<Notify> {
        Arc::clone(&self.look)
    }
}

/// Starts the tasks.
#[must_use]
pub fn start(inputs: NodeInputs) -> NodeHandle {
    let (addresses, addresses_seen) = watch::channel(Vec::new());
    let (uid, uid_seen) = watch::channel(None);
    let look = Arc::new(Notify::new());
    let config = Arc::clone(&inputs.config);
    let keeper = LeaseKeeper::new(
        &inputs.client,
        &config.node.node_name,
        config.kubelet.node_lease_duration_seconds,
        uid_seen.clone(),
    );
    let ooms = system_oom::follow(inputs.recorder.clone(), config.node.node_name.clone());
    let task = NodeTask {
        api: Api::all(inputs.client.clone()),
        facts: facts::read(Path::new("/")),
        inputs,
        addresses,
        uid,
        look: Arc::clone(&look),
        sent: None,
        told: None,
        stored: patch::Stored::default(),
        previous: Vec::new(),
        cordoned: false,
        runtime_seen: runtime::LastSeen::default(),
        runtime_version: None,
        images_at: None,
        images: None,
    };
    let tasks = Tasks::from([tokio::spawn(task.run()), tokio::spawn(keeper.run()), tokio::spawn(ooms)]);
    NodeHandle { addresses: addresses_seen, uid: uid_seen, look, tasks }
}

/// The status that was sent last.
struct Sent {
    /// Without heartbeat times, which alone are no change.
    content: Value,
    at: Instant,
}

struct NodeTask {
    api: Api<Node>,
    facts: Facts,
    inputs: NodeInputs,
    addresses: watch::Sender<Vec<IpAddr>>,
    uid: watch::Sender<Option<String>>,
    look: Arc<Notify>,
    sent: Option<Sent>,
    /// The last line for systemd.
    told: Option<String>,
    stored: patch::Stored,
    previous: Vec<NodeCondition>,
    /// Whether the last event of it said that the node is cordoned.
    cordoned: bool,
    runtime_seen: runtime::LastSeen,
    runtime_version: Option<String>,
    images_at: Option<Instant>,
    images: Option<Vec<k8s_openapi::api::core::v1::ContainerImage>>,
}

impl NodeTask {
    async fn run(mut self) {
        let reference = node_reference(self.name());
        self.inputs.recorder.event(&reference, Kind::Normal, "Starting", "Starting kubelet.");
        let frequency = self.inputs.config.kubelet.node_status_update_frequency.0;
        let mut backoff = Backoff::new(Duration::from_millis(200), frequency.max(Duration::from_secs(1)));
        let mut looks_left = UNREADY_LOOKS;
        loop {
            let passed = self.pass().await;
            self.tell(&passed);
            let pause = match passed {
                Ok(true) => {
                    backoff.reset();
                    looks_left = UNREADY_LOOKS;
                    frequency
                }
                Ok(false) => {
                    backoff.reset();
                    looks_left = looks_left.saturating_sub(1);
                    if looks_left > 0 { UNREADY_LOOK } else { frequency }
                }
                Err(_) => backoff.pause(),
            };
            let look = Arc::clone(&self.look);
            // Cancel-safe: watches keep what is not read, and a notification that comes while nobody waits is a permit.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(()) = self.inputs.pressures.changed() => {}
                Ok(()) = self.inputs.shutting_down.changed() => {}
                Ok(()) = self.inputs.own.changed() => self.doubt().await,
                () = look.notified() => {
                    looks_left = UNREADY_LOOKS;
                    self.images_at = None;
                }
            }
        }
    }

    /// Says how the node is to who asks systemd, and who joins it. Where all is well nothing is repeated; else it may have been said before the
    /// agent said that it had started, which replaced it.
    fn tell(&mut self, passed: &Result<bool, kube::Error>) {
        let line = summary(self.name(), self.uid.borrow().is_some(), passed, &self.previous);
        let is_new = self.told.as_ref() != Some(&line);
        if is_new || !matches!(passed, Ok(true)) {
            systemd::notify::status(&line);
        }
        match passed {
            Err(error) if is_new => tracing::warn!(error = %describe(error), "node status not sent, will retry"),
            Err(error) => tracing::debug!(error = %describe(error), "node status not sent, will retry"),
            Ok(_) => {}
        }
        self.told = Some(line);
    }

    /// The node lifecycle controller writes into the status of a node that it has not heard of for a while: what is true is
    /// sent again at once. What it wrote is what is compared with next, so that its end is a transition.
    async fn doubt(&mut self) {
        if self.inputs.own.borrow_and_update().as_ref().is_none_or(|own| own.doubted.is_none()) {
            return;
        }
        self.sent = None;
        match self.api.get(self.name()).await {
            Ok(node) => {
                self.stored = patch::Stored::of(&node);
                self.previous = node.status.and_then(|status| status.conditions).unwrap_or_default();
            }
            Err(error) => tracing::debug!(error = %describe(&error), "own node not read"),
        }
    }

    fn name(&self) -> &str {
        &self.inputs.config.node.node_name
    }

    /// One look at the machine, and what follows from it. Answers whether the node is Ready.
    async fn pass(&mut self) -> Result<bool, kube::Error> {
        let (status, changes) = self.observe().await;
        if self.uid.borrow().is_none() {
            self.register(&status).await?;
        }
        let content = without_heartbeat(&status);
        let report = self.inputs.config.kubelet.node_status_report_frequency.0;
        let own = self.inputs.own.borrow().clone();
        let is_wrong = own.as_deref().is_some_and(|own| !own.orphaned.is_empty() || is_mislabelled(own));
        let due = self.sent.as_ref().is_none_or(|sent| sent.content != content || sent.at.elapsed() >= report);
        if due || is_wrong {
            self.patch(&status).await?;
            self.sent = Some(Sent { content, at: Instant::now() });
        }
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        self.previous = status.conditions.unwrap_or_default();
        for change in changes {
            self.announce(change.reason);
        }
        self.say_cordoned(own.is_some_and(|own| own.unschedulable));
        Ok(ready)
    }

    fn say_cordoned(&mut self, is: bool) {
        if self.cordoned != is {
            self.cordoned = is;
            self.announce(if is { "NodeNotSchedulable" } else { "NodeSchedulable" });
        }
    }

    async fn observe(&mut self) -> (NodeStatus, Vec<conditions::Changed>) {
        let runtime = &self.inputs.runtime;
        let config = Arc::clone(&self.inputs.config);
        let state = self.runtime_seen.look(runtime).await;
        if state.answers {
            self.runtime_version = runtime::version(runtime).await.ok().or(self.runtime_version.take());
        }
        if state.answers
            && self.images_at.is_none_or(|at| at.elapsed() >= config.kubelet.node_status_report_frequency.0)
        {
            self.images = runtime::images(runtime, config.kubelet.node_status_max_images).await.or(self.images.take());
            self.images_at = Some(Instant::now());
        }
        let addresses = status::addresses(&config).await;
        self.addresses.send_if_modified(|known| {
            let changed = *known != addresses && !addresses.is_empty();
            if changed {
                known.clone_from(&addresses);
            }
            changed
        });
        let extended = self.inputs.own.borrow().as_ref().map(|own| own.extended.clone()).unwrap_or_default();
        let nodefs = facts::filesystem(&config.layout.data_dir);
        let pressures = self.inputs.pressures.borrow_and_update().clone();
        let goes_down = *self.inputs.shutting_down.borrow_and_update();
        let problems = state.problems.iter().cloned().chain(goes_down.then(|| shutdown::NOT_READY.to_owned()));
        let observed = Observed { not_ready: problems.collect(), pressures };
        let (conditions, changes) = conditions::conditions(&observed, &self.previous, jiff::Timestamp::now());
        let parts = status::Parts {
            facts: &self.facts,
            disk: nodefs,
            addresses: &self.addresses.borrow().clone(),
            runtime: &state,
            runtime_version: self.runtime_version.as_deref().unwrap_or_default(),
            images: self.images.as_deref().unwrap_or_default(),
            extended: &extended,
        };
        (status::status(&config, &parts, conditions), changes)
    }

    /// Creates the Node, or takes over the one that is there.
    async fn register(&mut self, status: &NodeStatus) -> Result<(), kube::Error> {
        let node = if self.inputs.config.kubelet.register_node {
            self.create(status).await?
        } else {
            // An administrator makes it; until then the status has no place.
            self.find().await?
        };
        if let Some(info) = node.status.as_ref().and_then(|s| s.node_info.as_ref())
            && !info.boot_id.is_empty()
            && info.boot_id != self.facts.boot_id
        {
            let message = format!("Node {} has been rebooted, boot id: {}", self.name(), self.facts.boot_id);
            self.inputs.recorder.event(&node_reference(self.name()), Kind::Warning, "Rebooted", &message);
        }
        self.stored = patch::Stored::of(&node);
        self.uid.send_replace(node.metadata.uid);
        Ok(())
    }

    async fn create(&mut self, status: &NodeStatus) -> Result<Node, kube::Error> {
        let node = status::new_node(&self.inputs.config, status.clone());
        match self.api.create(&PostParams::default(), &node).await {
            Ok(created) => {
                tracing::info!(node = %self.name(), "node registered");
                Ok(created)
            }
            Err(error) if api_code(&error) == Some(409) => self.take_over(&node).await,
            Err(error) => Err(error),
        }
    }

    /// The Node that is there, whose conditions are gone on with.
    async fn find(&mut self) -> Result<Node, kube::Error> {
        let found = self.api.get(self.name()).await?;
        self.previous = found.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        Ok(found)
    }

    /// The labels and annotations that a node must have are set; all others are somebody's.
    async fn take_over(&mut self, wanted: &Node) -> Result<Node, kube::Error> {
        let found = self.find().await?;
        let missing = |wanted: &Option<std::collections::BTreeMap<String, String>>,
                       found: &Option<std::collections::BTreeMap<String, String>>| {
            wanted.iter().flatten().any(|(k, v)| found.as_ref().and_then(|f| f.get(k)) != Some(v))
        };
        let (theirs, ours) = (&found.metadata, &wanted.metadata);
        if missing(&ours.labels, &theirs.labels) || missing(&ours.annotations, &theirs.annotations) {
            let patch = json!({"metadata": {"labels": ours.labels, "annotations": ours.annotations}});
            self.api.patch(self.name(), &PatchParams::default(), &Patch::Strategic(patch)).await?;
        }
        tracing::info!(node = %self.name(), "node taken over");
        Ok(found)
    }

    async fn patch(&mut self, status: &NodeStatus) -> Result<(), kube::Error> {
        let own = self.inputs.own.borrow().clone();
        let orphaned = own.iter().flat_map(|own| &own.orphaned);
        let mut patch = patch::patch(status, &self.stored, orphaned);
        if own.as_deref().is_some_and(is_mislabelled)
            && let Some(patch) = patch.as_object_mut()
        {
            let labels: std::collections::BTreeMap<_, _> = status::required_labels().into();
            patch.insert("metadata".into(), json!({ "labels": labels }));
        }
        let patch = Patch::Strategic(patch);
        match self.api.patch_status(self.name(), &PatchParams::default(), &patch).await {
            Ok(node) => {
                self.stored = patch::Stored::of(&node);
                Ok(())
            }
            Err(error) => {
                if is_not_found(&error) {
                    // Somebody deleted the Node: it is registered anew by the next pass.
                    self.uid.send_replace(None);
                    self.sent = None;
                }
                Err(error)
            }
        }
    }

    fn announce(&self, reason: &str) {
        let message = format!("Node {} status is now: {reason}", self.name());
        self.inputs.recorder.event(&node_reference(self.name()), Kind::Normal, reason, &message);
    }
}

/// Whether somebody changed labels that only the machine can know.
fn is_mislabelled(own: &own::OwnNode) -> bool {
    let differs = |(name, value): (&str, &str)| own.labels.get(name).is_none_or(|is| is != value);
    own.uid.is_some() && status::required_labels().into_iter().any(differs)
}

/// The labels that the node of a configuration registers with.
#[must_use]
pub fn labels(config: &Config) -> std::collections::BTreeMap<String, String> {
    status::labels(config)
}

/// How the node is, in a line.
fn summary(
    name: &str,
    is_registered: bool,
    passed: &Result<bool, kube::Error>,
    conditions: &[NodeCondition],
) -> String {
    match passed {
        Ok(true) => format!("node {name}"),
        Ok(false) => {
            let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
            let message = ready.and_then(|ready| ready.message.as_deref()).unwrap_or_default();
            format!("node {name}: not Ready: {message}")
        }
        Err(error) if is_registered => format!("node {name}: status not sent: {}", describe(error)),
        Err(error) => format!("node {name}: not registered: {}", describe(error)),
    }
}

/// What is compared to tell a change: everything but the time of looking.
fn without_heartbeat(status: &NodeStatus) -> Value {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    serde_json::to_value(status).unwrap_or_default()
}

/// A Node of this name with nothing but metadata and spec.
fn bare(name: &str, spec: NodeSpec) -> Node {
    Node {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: Some(spec),
        status: None,
    }
}

#[cfg(test)]
mod tests;
