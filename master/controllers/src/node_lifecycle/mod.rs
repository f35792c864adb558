//! Node lifecycle: a node that is silent for too long counts as lost, and conditions become taints.
//!
//! A node is heard of when its Lease or its own status changes, by our clock: clocks of nodes are not trusted. No polling:
//! each node has one timer that fires when its silence would have lasted too long.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use machinery::{Change, EventType, Outcome, Recorder, Retry, WorkQueue, reference};
use serde_json::json;
use tokio::time::Instant;

use crate::context::{Caches, Context};
use crate::pods;
use crate::trim::pods_on;

pub(crate) use plan::ready_status;

const NAME: &str = "node-controller";
const WORKERS: usize = 4;

/// When each node was last heard of.
#[derive(Default)]
struct Heard {
    last: Mutex<HashMap<String, Instant>>,
}

impl Heard {
    fn now(&self, node: &str) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned(), Instant::now());
    }

    fn forget(&self, node: &str) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    /// How long the node has been silent; a node that was never heard of is heard of now.
    fn silence(&self, node: &str) -> Duration {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.entry(node.to_owned()).or_insert_with(Instant::now).elapsed()
    }
}

struct Controller {
    client: Client,
    caches: Caches,
    recorder: Recorder,
    heard: Arc<Heard>,
    grace: Duration,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let heard = Arc::new(Heard::default());
    let caches = context.caches.clone();
    observe_leases(&caches, &queue, &heard);
    observe_nodes(&caches, &queue, &heard);
    let recorder = context.recorder(NAME, NAME);
    let grace = context.config.node_monitor_grace;
    let controller = Controller { client: context.client(NAME), caches, recorder, heard, grace };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

fn observe_leases(caches: &Caches, queue: &Arc<WorkQueue>, heard: &Arc<Heard>) {
    let (queue, heard, nodes) = (queue.clone(), heard.clone(), caches.nodes.clone());
    caches.leases.on_change(move |change| {
        let name = change.object().metadata.name.as_deref().unwrap_or_default();
        if matches!(change, Change::Deleted(_)) {
            return;
        }
        heard.now(name);
        // Only a lost node has something to gain from a renewal; for others the timer looks at it in time.
        let is_lost = nodes.get(name).is_some_and(|node| ready_status(&node) == "Unknown");
        if is_lost {
            queue.add(name);
        }
    });
}

fn observe_nodes(caches: &Caches, queue: &Arc<WorkQueue>, heard: &Arc<Heard>) {
    let (queue, heard, nodes) = (queue.clone(), heard.clone(), caches.nodes.clone());
    caches.nodes.on_change(move |change| {
        let node = change.object();
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if matches!(change, Change::Deleted(_)) {
            heard.forget(name);
        } else if plan::heartbeat(node) > change.old().and_then(|old| plan::heartbeat(old)) {
            heard.now(name);
        }
        queue.add(name);
        let readiness = |node: &Node| ready_status(node) == "True";
        let changed = match &change {
            Change::Updated(old, _) => readiness(old) != readiness(node),
            Change::Added(_) => true,
            Change::Deleted(_) => readiness(node),
        };
        // Whether all nodes are lost decides on the taints of each; as long as another one is ready, they are not.
        if changed && !plan::is_another_ready(&nodes.all(), name) {
            for other in nodes.all() {
                queue.add(other.metadata.name.as_deref().unwrap_or_default());
            }
        }
    });
}

impl Controller {
    async fn reconcile(&self, name: &str) -> Result<Outcome, Retry<kube::Error>> {
        let Some(node) = self.caches.nodes.get(name) else { return Ok(Outcome::Done) };
        let now = jiff::Timestamp::now();
        let silence = self.heard.silence(name);
        let is_lost = silence >= self.grace;
        if let Some(conditions) = plan::lost_conditions(&node, is_lost, now) {
            tracing::info!(node = name, "node is not heard of any more");
            let patch = json!({"status": {"conditions": conditions}});
            self.nodes().patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
            let message = format!("Node {name} status is now: NodeNotReady");
            self.recorder.event(reference(&*node), EventType::Normal, "NodeNotReady", message);
        }
        let status = if is_lost { "Unknown" } else { ready_status(&node) };
        if status != "True" {
            self.mark_pods_not_ready(name).await?;
        }
        let all_lost = self.caches.nodes.all().iter().all(|node| ready_status(node) != "True");
        if let Some(taints) = plan::taints(&node, status, all_lost, now) {
            let patch = json!({
                "metadata": {"resourceVersion": node.metadata.resource_version},
                "spec": {"taints": taints},
            });
            match self.nodes().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => (),
                Err(error) if machinery::is_not_found(&error) => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(if is_lost { Outcome::Done } else { Outcome::After(self.grace.saturating_sub(silence)) })
    }

    /// Endpoints of a node that nobody hears of must not be used: its pods are not ready.
    async fn mark_pods_not_ready(&self, node: &str) -> Result<(), kube::Error> {
        for pod in pods_on(&self.caches.pods, node).iter().filter(|pod| pods::is_ready(pod)) {
            let meta = &pod.metadata;
            let condition = json!({
                "type": "Ready",
                "status": "False",
                "lastTransitionTime": Time(jiff::Timestamp::now()),
            });
            let patch = json!({"metadata": {"uid": meta.uid}, "status": {"conditions": [condition]}});
            let api = Api::<Pod>::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
            let name = meta.name.as_deref().unwrap_or_default();
            match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => {
                    self.recorder.event(reference(&**pod), EventType::Warning, "NodeNotReady", "Node is not ready");
                }
                Err(error) if machinery::is_not_found(&error) || machinery::is_conflict(&error) => (),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }
}
