//! Creating, deleting, adopting and releasing pods for an owner, with its events and expectations.

use std::borrow::Cow;
use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource};
use machinery::{Change, EventType, Informer, Recorder, WorkQueue};

use crate::context::Caches;
use crate::expectations::Expectations;
use crate::owner;

/// Pods of one controller's owners.
pub(crate) struct PodControl {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) expectations: Arc<Expectations>,
}

/// What could not be written.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    /// Why a pod could not be created.
    pub(crate) create: Option<kube::Error>,
    /// Why a pod could not be deleted.
    pub(crate) delete: Option<kube::Error>,
}

impl PodControl {
    /// Creates pods in batches of 1, 2, 4, …, so that a quota or a broken template costs one request and not hundreds.
    pub(crate) async fn create(&self, key: &str, about: &ObjectReference, pods: Vec<Pod>) -> Result<(), kube::Error> {
        let mut rest = pods;
        let mut size = 1;
        while !rest.is_empty() {
            let batch: Vec<Pod> = rest.drain(..size.min(rest.len())).collect();
            let results = join_all(batch.iter().map(|pod| self.create_one(about, pod))).await;
            let failures: Vec<kube::Error> = results.into_iter().filter_map(Result::err).collect();
            let failed = failures.len();
            if let Some(error) = failures.into_iter().next() {
                self.expectations.created(key, failed + rest.len());
                return if machinery::is_namespace_terminating(&error) { Ok(()) } else { Err(error) };
            }
            size *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, about: &ObjectReference, pod: &Pod) -> Result<(), kube::Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        match api.create(&PostParams::default(), pod).await {
            Ok(created) => {
                let message = format!("Created pod: {}", created.metadata.name.unwrap_or_default());
                self.recorder.event(about.clone(), EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                if !machinery::is_namespace_terminating(&error) {
                    let message = format!("Error creating: {}", answer(&error));
                    self.recorder.event(about.clone(), EventType::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    /// Deletes pods, all at once.
    pub(crate) async fn delete(
        &self,
        key: &str,
        about: &ObjectReference,
        pods: &[Arc<Pod>],
    ) -> Result<(), kube::Error> {
        let results = join_all(pods.iter().map(|pod| self.delete_one(key, about, pod))).await;
        results.into_iter().find_map(Result::err).map_or(Ok(()), Err)
    }

    async fn delete_one(&self, key: &str, about: &ObjectReference, pod: &Pod) -> Result<(), kube::Error> {
        let meta = &pod.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let api = Api::<Pod>::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        let only_this = Preconditions { uid: meta.uid.clone(), resource_version: None };
        let result = api.delete(name, &DeleteParams::default().preconditions(only_this)).await;
        match result {
            Ok(_) => {
                let message = format!("Deleted pod: {name}");
                self.recorder.event(about.clone(), EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) => {
                self.expectations.deleted(key, meta.uid.as_deref().unwrap_or_default());
                if machinery::is_not_found(&error) || machinery::is_conflict(&error) {
                    return Ok(());
                }
                let message = format!("Error deleting: {}", answer(&error));
                self.recorder.event(about.clone(), EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    /// Writes adoptions and releases; the pods that are owned afterwards.
    pub(crate) async fn claim<K: Resource<DynamicType = ()>>(
        &self,
        owner: &K,
        claims: owner::Claims<Pod>,
    ) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let mut owned = claims.owned;
        for pod in &claims.release {
            self.patch(pod, owner::release(owner.meta(), &pod.metadata)).await?;
        }
        let adopts = !claims.adopt.is_empty() && owner::may_adopt(&self.client, owner).await?;
        for pod in claims.adopt.into_iter().filter(|_| adopts) {
            if self.patch(&pod, owner::adoption(owner, &pod.metadata)).await? {
                owned.push(pod);
            }
        }
        Ok(owned)
    }

    /// False when the pod is gone or another one by now.
    async fn patch(&self, pod: &Pod, patch: serde_json::Value) -> Result<bool, kube::Error> {
        let meta = &pod.metadata;
        let api = Api::<Pod>::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        let name = meta.name.as_deref().unwrap_or_default();
        match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(true),
            Err(error) if machinery::is_not_found(&error) || machinery::is_conflict(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Queues whom a change of a pod concerns: its controller of one kind and the one that it had, or, where it has none, those
/// that may claim it. What was expected of it is met.
pub(crate) fn observe(
    caches: &Caches,
    kind: Cow<'static, str>,
    queue: &Arc<WorkQueue>,
    expectations: &Arc<Expectations>,
    claimants: impl Fn(&str, &Pod) -> Vec<String> + Send + Sync + 'static,
) {
    let (queue, expectations) = (queue.clone(), expectations.clone());
    caches.pods.on_change(move |change| {
        let pod = change.object();
        let owner = owner_key(pod, &kind);
        let before = change.old().and_then(|old| owner_key(old, &kind));
        before.filter(|before| Some(before) != owner.as_ref()).into_iter().for_each(|before| queue.add(before));
        let Some(key) = owner else {
            if owner::controller_of(&pod.metadata).is_none() && !matches!(change, Change::Deleted(_)) {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                claimants(namespace, pod).into_iter().for_each(|key| queue.add(key));
            }
            return;
        };
        if matches!(change, Change::Added(_)) {
            expectations.created(&key, 1);
        }
        if matches!(change, Change::Deleted(_)) || pod.metadata.deletion_timestamp.is_some() {
            expectations.deleted(&key, pod.metadata.uid.as_deref().unwrap_or_default());
        }
        queue.add(key);
    });
}

/// `namespace/name` of the pod's controller, if it is of this kind.
pub(crate) fn owner_key(pod: &Pod, kind: &str) -> Option<String> {
    let owner = owner::controller_of(&pod.metadata).filter(|owner| owner.kind == kind)?;
    Some(format!("{}/{}", pod.metadata.namespace.as_deref().unwrap_or_default(), owner.name))
}

/// The pods of an owner and those without one in its namespace: all that it may have to claim.
pub(crate) fn candidates<K: machinery::Kind>(
    cache: &Informer<K>,
    owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> Vec<Arc<K>> {
    let mut all = cache.indexed(&format!("owner/{}", owner.uid.as_deref().unwrap_or_default()));
    all.extend(cache.indexed(&format!("orphan/{}", owner.namespace.as_deref().unwrap_or_default())));
    all
}

/// The API server's own words.
pub(crate) fn answer(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
