//! Pod garbage collection: pods whose node is gone, pods that are deleted before they got a node, and too many ended ones.

use std::sync::Arc;
use std::time::Duration;

use api::pod::is_terminal;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::DeleteParams;
use machinery::{Change, Outcome, Retry, WorkQueue, key_of};
use tokio::time::Instant;

use crate::context::{Caches, Context};
use crate::pods;
use crate::taint_eviction::delete_disrupted;

const NAME: &str = "pod-garbage-collector";
const WORKERS: usize = 2;
/// How long a node may be missing before its pods are removed: it may only be registering again.
const QUARANTINE: Duration = Duration::from_secs(40);
/// How many ended pods are kept (kube-controller-manager's --terminated-pod-gc-threshold).
const MOST_ENDED: usize = 12_500;
/// The key that stands for counting ended pods, and how long such wishes are gathered.
const ENDED: &str = "/ended";
const GATHER: Duration = Duration::from_secs(20);

struct Controller {
    client: Client,
    caches: Caches,
    started: Instant,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let (to, nodes) = (queue.clone(), caches.nodes.clone());
    caches.pods.on_change(move |change| {
        let pod = change.object();
        if matches!(change, Change::Deleted(_)) {
            return;
        }
        if is_terminal(pod) {
            to.add_after(ENDED, GATHER);
        }
        match pods::node_name(pod) {
            Some(name) if nodes.get(name).is_none() => to.add_after(key_of(&pod.metadata), QUARANTINE),
            None if pod.metadata.deletion_timestamp.is_some() => to.add(key_of(&pod.metadata)),
            _ => (),
        }
    });
    let (to, all_pods) = (queue.clone(), caches.pods.clone());
    caches.nodes.on_change(move |change| {
        if let Change::Deleted(node) = change {
            for pod in all_pods.indexed(&format!("node/{}", node.metadata.name.as_deref().unwrap_or_default())) {
                to.add_after(key_of(&pod.metadata), QUARANTINE);
            }
        }
    });
    let controller = Controller { client: context.client(NAME), caches, started: Instant::now() };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Retry<kube::Error>> {
        if key == ENDED {
            for pod in surplus(self.caches.pods.all(), MOST_ENDED) {
                self.delete(&pod, ("DeletionByPodGC", "PodGC: too many ended pods")).await?;
            }
            return Ok(Outcome::Done);
        }
        let Some(pod) = self.caches.pods.get(key) else { return Ok(Outcome::Done) };
        match pods::node_name(&pod) {
            Some(name) if self.caches.nodes.get(name).is_none() => {
                let left = QUARANTINE.saturating_sub(self.started.elapsed());
                if !left.is_zero() {
                    return Ok(Outcome::After(left));
                }
                tracing::info!(pod = key, node = name, "removing a pod whose node is gone");
                self.delete(&pod, ("DeletionByPodGC", "PodGC: node no longer exists")).await?;
            }
            None if pod.metadata.deletion_timestamp.is_some() => {
                self.delete(&pod, ("DeletionByPodGC", "PodGC: unscheduled and terminating")).await?;
            }
            _ => (),
        }
        Ok(Outcome::Done)
    }

    async fn delete(&self, pod: &Pod, reason: (&str, &str)) -> Result<(), kube::Error> {
        delete_disrupted(&self.client, pod, reason, DeleteParams::default().grace_period(0)).await
    }
}

/// The oldest ended pods beyond the threshold.
fn surplus(all: Vec<Arc<Pod>>, most: usize) -> Vec<Arc<Pod>> {
    let mut ended: Vec<Arc<Pod>> = all.into_iter().filter(|pod| is_terminal(pod)).collect();
    let count = ended.len().saturating_sub(most);
    ended.sort_by(|a, b| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
    ended.truncate(count);
    ended
}
