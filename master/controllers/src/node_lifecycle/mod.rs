//! Node lifecycle: a node that is silent for too long counts as lost, and conditions become taints.
//!
//! A node is heard of when its Lease or its own status changes. No polling: each node has one timer that fires when its
//! silence would have lasted too long. How fast nodes that are not ready may be emptied is [`zones`]'s.

mod heard;
mod plan;
#[cfg(test)]
mod tests;
mod zones;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use machinery::{Change, EventType, Outcome, Recorder, Retry, WorkQueue, reference};
use serde_json::json;
use tokio::time::Instant;

use crate::context::{Caches, Context};
use crate::pods;
use crate::trim::pods_on;

use heard::Heard;
use plan::Eviction;
use zones::{Shift, Turn, Zones};

pub(crate) use plan::ready_status;

const NAME: &str = "node-controller";
const WORKERS: usize = 4;
/// How long a node may be silent that has never said anything (`--node-startup-grace-period`).
const STARTUP_GRACE: Duration = Duration::from_secs(60);
/// When to look again whether any node is heard of.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What handlers and workers share.
#[derive(Default)]
struct Shared {
    heard: Heard,
    zones: Mutex<Zones>,
    /// Nodes whose pods are still to be marked as not ready.
    unmarked: Mutex<HashSet<String>>,
}

impl Shared {
    fn zones(&self) -> MutexGuard<'_, Zones> {
        self.zones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unmarked(&self) -> MutexGuard<'_, HashSet<String>> {
        self.unmarked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Controller {
    client: Client,
    caches: Caches,
    recorder: Recorder,
    shared: Arc<Shared>,
    grace: Duration,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let shared = Arc::new(Shared::default());
    let caches = context.caches.clone();
    let recorder = context.recorder(NAME, NAME);
    observe_leases(&caches, &queue, &shared);
    observe_nodes(&caches, &queue, &shared, recorder.clone());
    let grace = context.config.node_monitor_grace;
    let controller = Controller { client: context.client(NAME), caches, recorder, shared, grace };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

fn observe_leases(caches: &Caches, queue: &Arc<WorkQueue>, shared: &Arc<Shared>) {
    let (queue, shared, nodes) = (queue.clone(), shared.clone(), caches.nodes.clone());
    caches.leases.on_change(move |change| {
        let name = change.object().metadata.name.as_deref().unwrap_or_default();
        if matches!(change, Change::Deleted(_)) {
            return;
        }
        shared.heard.now(name);
        // Only a lost node has something to gain from a renewal; for others the timer looks at it in time.
        let is_lost = nodes.get(name).is_some_and(|node| ready_status(&node) == "Unknown");
        if is_lost {
            queue.add(name);
        }
    });
}

fn observe_nodes(caches: &Caches, queue: &Arc<WorkQueue>, shared: &Arc<Shared>, recorder: Recorder) {
    let (queue, shared, nodes) = (queue.clone(), shared.clone(), caches.nodes.clone());
    caches.nodes.on_change(move |change| {
        let node = change.object();
        let name = node.name_any();
        if plan::heartbeat(node) > change.old().and_then(|old| plan::heartbeat(old)) {
            shared.heard.now(&name);
        }
        match &change {
            Change::Added(_) => {
                let message = format!("Node {name} event: Registered Node {name} in Controller");
                recorder.event(by_uid(node), EventType::Normal, "RegisteredNode", message);
                // It may have been lost while nobody looked.
                shared.unmarked().insert(name.clone());
            }
            Change::Updated(..) => (),
            Change::Deleted(_) => {
                let message = format!("Node {name} event: Removing Node {name} from Controller");
                recorder.event(by_uid(node), EventType::Normal, "RemovingNode", message);
                shared.heard.forget(&name);
                shared.unmarked().remove(&name);
                shared.zones().leave(&name);
            }
        }
        queue.add(name.as_str());
        let place = zones::place(node).filter(|_| !matches!(change, Change::Deleted(_)));
        let shift = shared.zones().put(&name, place, Instant::now());
        if shift == Shift::BackInContact {
            tracing::info!("some nodes are ready again");
            shared.heard.all_now();
        }
        if shift != Shift::Nothing {
            nodes.all().iter().for_each(|other| queue.add(other.name_any()));
        }
    });
}

/// Events about a node as such do not name a version of it.
fn by_uid(node: &Node) -> ObjectReference {
    ObjectReference { resource_version: None, ..reference(node) }
}

impl Controller {
    async fn reconcile(&self, name: &str) -> Result<Outcome, Retry<kube::Error>> {
        let Some(mut node) = self.caches.nodes.get(name) else { return Ok(Outcome::Done) };
        let now = jiff::Timestamp::now();
        let silence = self.shared.heard.silence(name);
        let grace = if plan::has_reported(&node) { self.grace } else { STARTUP_GRACE };
        let is_lost = silence >= grace;
        if let Some(conditions) = plan::lost_conditions(&node, is_lost, now) {
            tracing::info!(node = name, "node is not heard of any more");
            let was_ready = ready_status(&node) == "True";
            let patch = json!({
                "metadata": {"resourceVersion": node.metadata.resource_version},
                "status": {"conditions": conditions},
            });
            node = Arc::new(self.nodes().patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?);
            if was_ready {
                let message = format!("Node {name} status is now: NodeNotReady");
                self.recorder.event(by_uid(&node), EventType::Normal, "NodeNotReady", message);
                self.shared.unmarked().insert(name.to_owned());
            }
        }
        self.mark_pods(&node, name).await?;
        let (eviction, wait) = self.eviction(&node, name);
        self.write_taints(&node, name, eviction).await?;
        let silent_for_too_long = (!is_lost).then(|| grace.saturating_sub(silence));
        Ok(silent_for_too_long.into_iter().chain(wait).min().map_or(Outcome::Done, Outcome::After))
    }

    /// What is to become of the node's pods, and when to ask again.
    fn eviction(&self, node: &Node, name: &str) -> (Eviction, Option<Duration>) {
        let mut zones = self.shared.zones();
        if zones.is_cut_off() {
            return (Eviction::Stop, None);
        }
        if !plan::is_to_be_emptied(node) {
            zones.leave(name);
            return (Eviction::Hold, None);
        }
        // Where nothing at all is heard, this node is only the first that is missed, and the others will be soon.
        if self.shared.heard.silence_of_all() >= self.grace / 2 {
            return (Eviction::Hold, Some(LOOK_AGAIN));
        }
        match zones.turn(name, zones::zone_of(node), Instant::now()) {
            Turn::Now => (Eviction::Begin, None),
            Turn::After(wait) => (Eviction::Hold, Some(wait)),
            Turn::Never => (Eviction::Hold, None),
        }
    }

    async fn write_taints(&self, node: &Node, name: &str, eviction: Eviction) -> Result<(), Retry<kube::Error>> {
        let (taints, labels) = (plan::taints(node, eviction, jiff::Timestamp::now()), plan::labels(node));
        if taints.is_none() && labels.is_empty() {
            return Ok(());
        }
        let metadata = json!({"resourceVersion": node.metadata.resource_version, "labels": labels});
        let spec = taints.map_or_else(|| json!({}), |taints| json!({ "taints": taints }));
        let patch = json!({ "metadata": metadata, "spec": spec });
        match self.nodes().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if !machinery::is_not_found(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Has the pods of a node marked that was lost, or was found to be lost.
    async fn mark_pods(&self, node: &Node, name: &str) -> Result<(), Retry<kube::Error>> {
        if !self.shared.unmarked().contains(name) {
            return Ok(());
        }
        if plan::has_reported(node) && ready_status(node) != "True" {
            self.mark_pods_not_ready(name).await?;
        }
        self.shared.unmarked().remove(name);
        Ok(())
    }

    /// Endpoints of a node that nobody hears of must not be used: its pods are not ready.
    async fn mark_pods_not_ready(&self, node: &str) -> Result<(), Retry<kube::Error>> {
        for pod in pods_on(&self.caches.pods, node).iter().filter(|pod| pods::is_ready(pod)) {
            let meta = &pod.metadata;
            let condition = json!({
                "type": "Ready",
                "status": "False",
                "lastTransitionTime": Time(jiff::Timestamp::now()),
            });
            let patch = json!({
                "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
                "status": {"conditions": [condition]},
            });
            let api = Api::<Pod>::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
            let name = meta.name.as_deref().unwrap_or_default();
            match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => {
                    self.recorder.event(reference(&**pod), EventType::Warning, "NodeNotReady", "Node is not ready");
                }
                Err(error) if machinery::is_not_found(&error) => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }
}
