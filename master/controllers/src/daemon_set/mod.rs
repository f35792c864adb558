//! DaemonSet: one pod on every node that it is for.

mod pauses;
mod plan;
mod pod;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use machinery::{Change, EventType, Outcome, Retry, WorkQueue, key_of, reference};
use serde_json::{Value, json};

use crate::context::{Caches, Context};
use crate::expectations::Expectations;
use crate::merge;
use crate::owner::{claim, controller_of, selects};
use crate::pod_control::{self, PodControl, candidates};
use crate::pods;
use crate::revisions;
use pauses::Pauses;
use plan::Facts;

const NAME: &str = "daemon-set-controller";
/// The component that events name, without dashes as upstream has it.
const COMPONENT: &str = "daemonset-controller";
const KIND: &str = "DaemonSet";
const WORKERS: usize = 2;

struct Controller {
    client: Client,
    caches: Caches,
    pods: PodControl,
    pauses: Mutex<Pauses>,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let expectations = Arc::new(Expectations::default());
    let caches = context.caches.clone();
    observe_sets_and_nodes(&caches, &queue, &expectations);
    observe_pods(&caches, &queue, &expectations);
    let recorder = context.recorder(NAME, COMPONENT);
    let client = context.client(NAME);
    let pods = PodControl { client: client.clone(), recorder, expectations };
    let controller = Controller { client, caches, pods, pauses: Mutex::default() };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

fn observe_sets_and_nodes(caches: &Caches, queue: &Arc<WorkQueue>, expectations: &Arc<Expectations>) {
    let (to, expectations) = (queue.clone(), expectations.clone());
    caches.daemon_sets.on_change(move |change| {
        let key = key_of(&change.object().metadata);
        if matches!(change, Change::Deleted(_)) {
            expectations.forget(&key);
        }
        to.add(key);
    });
    let (to, sets) = (queue.clone(), caches.daemon_sets.clone());
    // A revision that was taken away is made again; one that nobody controls may be adopted.
    caches.revisions.on_change(move |change| {
        let meta = &change.object().metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        match (&change, controller_of(meta)) {
            (Change::Deleted(_), Some(owner)) if owner.kind == KIND => to.add(format!("{namespace}/{}", owner.name)),
            (Change::Deleted(_), _) | (_, Some(_)) => {}
            (_, None) => {
                let all = sets.in_namespace(namespace);
                let selecting = all.iter().filter(|set| wants(set, meta.labels.as_ref()));
                selecting.for_each(|set| to.add(key_of(&set.metadata)));
            }
        }
    });
    let (to, sets) = (queue.clone(), caches.daemon_sets.clone());
    caches.nodes.on_change(move |change| {
        let what_counts = |node: &Node| {
            let spec = node.spec.as_ref();
            (
                node.metadata.labels.clone(),
                spec.and_then(|spec| spec.taints.clone()),
                spec.and_then(|spec| spec.unschedulable),
            )
        };
        if change.old().is_some_and(|old| what_counts(old) == what_counts(change.object())) {
            return;
        }
        sets.all().iter().for_each(|set| to.add(key_of(&set.metadata)));
    });
}

fn observe_pods(caches: &Caches, queue: &Arc<WorkQueue>, expectations: &Arc<Expectations>) {
    let sets = caches.daemon_sets.clone();
    pod_control::observe(caches, KIND.into(), queue, expectations, move |namespace, pod| {
        let all = sets.in_namespace(namespace);
        all.iter().filter(|set| wants(set, pod.metadata.labels.as_ref())).map(|set| key_of(&set.metadata)).collect()
    });
}

/// Whether pods and revisions with these labels are the set's, when they are nobody else's.
fn wants(set: &DaemonSet, labels: Option<&BTreeMap<String, String>>) -> bool {
    set.spec.as_ref().is_some_and(|spec| selects(&spec.selector, labels))
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Retry<kube::Error>> {
        let Some(set) = self.caches.daemon_sets.get(key) else { return Ok(Outcome::Done) };
        let Some(spec) = &set.spec else { return Ok(Outcome::Done) };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let may_count = self.pods.expectations.are_met(key);
        let owned = self
            .pods
            .claim(&*set, claim(&set.metadata, &spec.selector, candidates(&self.caches.pods, &set.metadata)))
            .await?;
        let revisions = revisions::claimed(&self.client, &self.caches.revisions, &*set, &spec.selector).await?;
        let Some(hash) = self.current_revision(&set, &revisions).await? else { return Ok(Outcome::Done) };
        let nodes = self.caches.nodes.all();
        let now = Timestamp::now();
        let facts = Facts { set: &set, nodes: &nodes, pods: &owned, hash: &hash, now };
        let mut plan = plan::plan(&facts);
        let mut managed = Ok(());
        if may_count {
            self.pauses.lock().unwrap_or_else(PoisonError::into_inner).hold(&set, &mut plan, now);
            managed = self.manage(key, &set, &hash, &mut plan).await;
        }
        // The status is true whether pods could be made or not.
        self.write_status(&set, &status::status(&facts)).await?;
        managed?;
        if may_count {
            self.clean_up(&set, &revisions, &hash, &owned).await?;
        }
        Ok(plan.look_again.map_or(Outcome::Done, |seconds| Outcome::After(Duration::from_secs(seconds))))
    }

    async fn manage(&self, key: &str, set: &DaemonSet, hash: &str, plan: &mut plan::Plan) -> Result<(), kube::Error> {
        let about = reference(set);
        let tell = |pod: &Pod, kind, reason, state, end| {
            let node = pods::node_name(pod).unwrap_or_default();
            let message =
                format!("Found {state} daemon pod {} on node {node}, will try to {end} it", key_of(&pod.metadata));
            tracing::debug!(pod = key_of(&pod.metadata), node, state, "removing a daemon pod that ended");
            self.pods.recorder.event(about.clone(), kind, reason, message);
        };
        plan.failed.iter().for_each(|pod| tell(pod, EventType::Warning, "FailedDaemonPod", "failed", "kill"));
        plan.succeeded.iter().for_each(|pod| tell(pod, EventType::Normal, "SucceededDaemonPod", "succeeded", "delete"));
        if plan.create.is_empty() && plan.delete.is_empty() {
            return Ok(());
        }
        let uids = plan.delete.iter().filter_map(|pod| pod.metadata.uid.clone());
        self.pods.expectations.expect(key, plan.create.len(), uids);
        let new: Vec<Pod> = plan.create.iter().map(|node| pod::pod_for(set, node, hash)).collect();
        let created = self.pods.create(key, &about, new).await;
        self.pods.delete(key, &about, &plan.delete).await?;
        created
    }

    /// The hash of the current template; its ControllerRevision is made when there is none. No hash: its name was taken,
    /// which the next pass settles.
    async fn current_revision(
        &self,
        set: &DaemonSet,
        known: &[Arc<ControllerRevision>],
    ) -> Result<Option<String>, kube::Error> {
        let wanted = revisions::of(set, known);
        let revision = revisions::ensure(&self.revisions(set), known, wanted).await?;
        if revision.is_none() {
            let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0) + 1;
            self.patch_status(set, json!({"collisionCount": collisions})).await?;
        }
        Ok(revision.map(|one| pod::hash_of(&one)))
    }

    /// Drops old revisions beyond revisionHistoryLimit that no pod has.
    async fn clean_up(
        &self,
        set: &DaemonSet,
        known: &[Arc<ControllerRevision>],
        current: &str,
        owned: &[Arc<Pod>],
    ) -> Result<(), kube::Error> {
        let is_live = |one: &ControllerRevision| {
            let hash = pod::hash_of(one);
            hash == current || owned.iter().any(|pod| pod::hash_of_pod(pod) == hash)
        };
        for old in revisions::surplus(set, known, is_live) {
            match self.revisions(set).delete(&old, &DeleteParams::default()).await {
                Err(error) if !machinery::is_not_found(&error) => return Err(error),
                _ => (),
            }
        }
        Ok(())
    }

    async fn write_status(&self, set: &DaemonSet, status: &DaemonSetStatus) -> Result<(), kube::Error> {
        if set.status.as_ref() == Some(status) {
            return Ok(());
        }
        self.patch_status(set, merge::difference(&set.status.as_ref(), &Some(status))).await
    }

    /// Only over the version that the status was made of.
    async fn patch_status(&self, set: &DaemonSet, status: Value) -> Result<(), kube::Error> {
        let api =
            Api::<DaemonSet>::namespaced(self.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default());
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let patch = json!({"metadata": {"resourceVersion": set.metadata.resource_version}, "status": status});
        match api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if !machinery::is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn revisions(&self, set: &DaemonSet) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default())
    }
}

/// The pods of each node: of those that wait for their node, by the node that they are made for.
fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<&str, Vec<&Arc<Pod>>> {
    let mut by_node: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        if let Some(node) = pods::node_name(pod).or_else(|| pod::target(pod)) {
            by_node.entry(node).or_default().push(pod);
        }
    }
    by_node
}
