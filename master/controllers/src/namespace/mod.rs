//! Namespace deletion: everything in a namespace goes before it does, and pods before what they may need to end (KEP-5080).

mod plan;
#[cfg(test)]
mod tests;

use http::Request;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use machinery::{Change, Outcome, Retry, WorkQueue};
use serde_json::{Value, json};

use crate::context::{Caches, Context};
use crate::discovery::{self, KnownKind};
use crate::patience::Patience;
use plan::Remaining;

const NAME: &str = "namespace-controller";
const WORKERS: usize = 4;
/// The finalizer in spec.finalizers that this controller takes off.
const FINALIZER: &str = "kubernetes";

struct Controller {
    client: Client,
    caches: Caches,
    patience: Patience,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let to = queue.clone();
    caches.namespaces.on_change(move |change| {
        let meta = &change.object().metadata;
        if meta.deletion_timestamp.is_some() && !matches!(change, Change::Deleted(_)) {
            to.add(meta.name.as_deref().unwrap_or_default());
        }
    });
    // Pods take longest, so that the end of the last one is what is waited for.
    let (to, all) = (queue.clone(), caches.namespaces.clone());
    caches.pods.on_change(move |change| {
        let namespace = change.object().metadata.namespace.as_deref().unwrap_or_default();
        let is_going = || all.get(namespace).is_some_and(|one| one.metadata.deletion_timestamp.is_some());
        if matches!(change, Change::Deleted(_)) && is_going() {
            to.add(namespace);
        }
    });
    let controller = Controller { client: context.client(NAME), caches, patience: Patience::default() };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

impl Controller {
    async fn reconcile(&self, name: &str) -> Result<Outcome, Retry<kube::Error>> {
        let Some(namespace) = self.caches.namespaces.get(name) else {
            self.patience.forget(name);
            return Ok(Outcome::Done);
        };
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
        if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|one| one == FINALIZER) {
            return Ok(Outcome::Done);
        }
        let (known, discovery_error) = match discovery::kinds(&self.client).await {
            Ok(known) => (known, None),
            Err(error) => (discovery::Known::default(), Some(error)),
        };
        let failed = discovery_error.as_ref().map(ToString::to_string);
        let discovery = failed.or_else(|| plan::undiscovered(&known.stale));
        let mut left = Remaining { discovery, ..Remaining::default() };
        let (pods, others): (Vec<_>, Vec<_>) =
            known.kinds.iter().filter(|kind| kind.namespaced).partition(|kind| is_pod(kind));
        for kinds in [pods, others] {
            // What pods may need stays until the last one is gone.
            if !left.objects.is_empty() {
                break;
            }
            for kind in kinds {
                if let Err(error) = self.empty(name, kind, &mut left).await {
                    left.failures.push(error.to_string());
                }
            }
        }
        if left.is_empty() {
            self.patience.forget(name);
            self.finalize(&namespace).await?;
            return Ok(Outcome::Done);
        }
        let conditions = plan::conditions(&namespace, &left, jiff::Timestamp::now());
        let known = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        if conditions != known {
            let patch = json!({
                "metadata": {"resourceVersion": namespace.metadata.resource_version},
                "status": {"conditions": conditions},
            });
            let api = Api::<Namespace>::all(self.client.clone());
            match api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Err(error) if !machinery::is_not_found(&error) => return Err(error.into()),
                _ => (),
            }
        }
        if let Some(error) = discovery_error {
            return Err(Retry::Failed(error));
        }
        Ok(Outcome::After(self.patience.next(name, left.objects.values().sum())))
    }

    /// Deletes all objects of one kind, and counts what is still there.
    async fn empty(&self, namespace: &str, kind: &KnownKind, left: &mut Remaining) -> Result<(), kube::Error> {
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &kind.resource);
        let present = api.list_metadata(&ListParams::default()).await?.items;
        if present.is_empty() {
            return Ok(());
        }
        if present.iter().any(|object| object.metadata.deletion_timestamp.is_none()) {
            let params = DeleteParams::background();
            match api.delete_collection(&params, &ListParams::default()).await {
                Ok(_) => (),
                Err(error) if is_unsupported(&error) => {
                    for object in &present {
                        let name = object.metadata.name.as_deref().unwrap_or_default();
                        match api.delete(name, &params).await {
                            Err(error) if !machinery::is_not_found(&error) => return Err(error),
                            _ => (),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let present = api.list_metadata(&ListParams::default()).await?.items;
        let finalizers = present.iter().map(|object| object.metadata.finalizers.clone().unwrap_or_default());
        left.note(&format!("{}.{}", kind.resource.plural, kind.resource.group), finalizers);
        Ok(())
    }

    /// Takes our finalizer off through namespaces/finalize, the only way to change spec.finalizers. All else is written as it was
    /// read: others may have finalizers in the metadata, which the cache has only a part of.
    async fn finalize(&self, emptied: &Namespace) -> Result<(), kube::Error> {
        let name = emptied.metadata.name.as_deref().unwrap_or_default();
        let Some(mut namespace) = Api::<Namespace>::all(self.client.clone()).get_opt(name).await? else {
            return Ok(());
        };
        // One that was made anew is not empty.
        if namespace.metadata.uid != emptied.metadata.uid {
            return Ok(());
        }
        namespace.spec.get_or_insert_default().finalizers.get_or_insert_default().retain(|one| one != FINALIZER);
        let request = Request::put(format!("/api/v1/namespaces/{name}/finalize"))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(json!(namespace).to_string().into_bytes())
            .map_err(kube::Error::HttpError)?;
        match self.client.request::<Value>(request).await {
            Err(error) if !machinery::is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn is_pod(kind: &KnownKind) -> bool {
    kind.resource.group.is_empty() && kind.resource.kind == "Pod"
}

fn is_unsupported(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 405 || status.code == 404)
}
