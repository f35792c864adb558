//! ReplicaSet and ReplicationController: keep as many pods of a template as asked for.

mod plan;
pub(crate) mod rank;
mod replicated;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use machinery::{Change, Outcome, Retry, WorkQueue, key_of, reference};
use serde_json::json;

use crate::context::{Caches, Context};
use crate::expectations::Expectations;
use crate::merge;
use crate::owner::{claim, controller_of, controller_reference, selects};
use crate::pod_control::{self, Failure, PodControl, answer, candidates};
use crate::pods;

use replicated::Replicated;

const WORKERS: usize = 5;

struct Controller<K: 'static> {
    client: Client,
    caches: Caches,
    pods: PodControl,
    kind: PhantomData<fn() -> K>,
}

pub(crate) fn start(context: &mut Context) {
    start_kind::<ReplicaSet>(context);
    start_kind::<ReplicationController>(context);
}

fn start_kind<K: Replicated>(context: &mut Context) {
    let queue = WorkQueue::new();
    let expectations = Arc::new(Expectations::default());
    let caches = context.caches.clone();
    observe_sets::<K>(&caches, &queue, &expectations);
    observe_pods::<K>(&caches, &queue, &expectations);
    let recorder = context.recorder(K::CONTROLLER, K::CONTROLLER);
    let client = context.client(K::CONTROLLER);
    let pods = PodControl { client: client.clone(), recorder, expectations };
    let controller = Controller::<K> { client, caches, pods, kind: PhantomData };
    context.spawn_workers(K::CONTROLLER, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

fn observe_sets<K: Replicated>(caches: &Caches, queue: &Arc<WorkQueue>, expectations: &Arc<Expectations>) {
    let (queue, expectations) = (queue.clone(), expectations.clone());
    K::cache(caches).on_change(move |change| {
        let key = key_of(change.object().meta());
        if matches!(change, Change::Deleted(_)) {
            expectations.forget(&key);
        }
        queue.add(key);
    });
}

fn observe_pods<K: Replicated>(caches: &Caches, queue: &Arc<WorkQueue>, expectations: &Arc<Expectations>) {
    let sets = K::cache(caches).clone();
    pod_control::observe(caches, K::kind(&()), queue, expectations, move |namespace, pod| {
        let all = sets.in_namespace(namespace);
        all.iter().filter(|set| wants(&set.as_set(), pod)).map(|set| key_of(set.meta())).collect()
    });
}

fn wants(set: &ReplicaSet, pod: &Pod) -> bool {
    set.spec.as_ref().is_some_and(|spec| selects(&spec.selector, pod.metadata.labels.as_ref()))
}

impl<K: Replicated> Controller<K> {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Retry<kube::Error>> {
        let Some(owner) = K::cache(&self.caches).get(key) else { return Ok(Outcome::Done) };
        let set = owner.as_set();
        let Some(spec) = &set.spec else { return Ok(Outcome::Done) };
        let may_count = self.pods.expectations.are_met(key);
        let mut known = candidates(&self.caches.pods, &set.metadata);
        known.retain(|pod| pod.metadata.deletion_timestamp.is_some() || pods::is_active(pod));
        let owned = self.pods.claim(&*owner, claim(&set.metadata, &spec.selector, known)).await?;
        let (active, terminating): (Vec<_>, Vec<_>) = owned.into_iter().partition(|pod| pods::is_active(pod));
        let now = jiff::Timestamp::now();
        let mut failure = Failure::default();
        if may_count && set.metadata.deletion_timestamp.is_none() {
            failure = self.manage(key, (&owner, &set), &active, now).await;
        }
        let mut status = plan::status(&set, &active, terminating.len(), now, &plan::Failures::from(&failure));
        status.terminating_replicas = status.terminating_replicas.filter(|_| K::TELLS_TERMINATING);
        self.write_status(&set, &status).await?;
        if let Some(error) = failure.create.or(failure.delete) {
            return Err(Retry::Failed(error));
        }
        let next = plan::next_availability(spec.min_ready_seconds.unwrap_or(0), &active, now);
        Ok(next.map_or(Outcome::Done, |seconds| Outcome::After(Duration::from_secs(seconds))))
    }

    async fn manage(
        &self,
        key: &str,
        (owner, set): (&K, &ReplicaSet),
        active: &[Arc<Pod>],
        now: jiff::Timestamp,
    ) -> Failure {
        let Some(spec) = &set.spec else { return Failure::default() };
        let about = reference(owner);
        let mut failure = Failure::default();
        match plan::difference(set, active.len()) {
            plan::Difference::Create(count) => {
                let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
                let name = set.metadata.name.as_deref().unwrap_or_default();
                let template = spec.template.clone().unwrap_or_default();
                let pod = pods::from_template(&template, namespace, name, controller_reference(owner));
                self.pods.expectations.expect(key, count, []);
                failure.create = self.pods.create(key, &about, vec![pod; count]).await.err();
            }
            plan::Difference::Delete(count) => {
                let chosen = rank::to_delete(active, &self.related(set), count, now);
                let uids = chosen.iter().filter_map(|pod| pod.metadata.uid.clone());
                self.pods.expectations.expect(key, 0, uids);
                failure.delete = self.pods.delete(key, &about, &chosen).await.err();
            }
            plan::Difference::None => (),
        }
        failure
    }

    /// Active pods of all ReplicaSets with the same controller: a node with more of them is relieved first.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let uid = set.metadata.uid.clone().unwrap_or_default();
        let uids = match controller_of(&set.metadata) {
            Some(owner) => {
                let siblings = self.caches.replica_sets.indexed(&format!("owner/{}", owner.uid));
                siblings.iter().filter_map(|sibling| sibling.metadata.uid.clone()).collect()
            }
            None => vec![uid],
        };
        let all = uids.iter().flat_map(|uid| self.caches.pods.indexed(&format!("owner/{uid}")));
        all.filter(|pod| pods::is_active(pod)).collect()
    }

    async fn write_status(&self, set: &ReplicaSet, status: &ReplicaSetStatus) -> Result<(), kube::Error> {
        if set.status.as_ref() == Some(status) {
            return Ok(());
        }
        let meta = &set.metadata;
        let (namespace, name) =
            (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let status = merge::difference(&set.status.as_ref(), &Some(status));
        let patch = json!({"metadata": {"resourceVersion": meta.resource_version}, "status": status});
        machinery::unless_gone(api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await)
    }
}

impl From<&Failure> for plan::Failures {
    fn from(failure: &Failure) -> Self {
        Self { create: failure.create.as_ref().map(answer), delete: failure.delete.as_ref().map(answer) }
    }
}
