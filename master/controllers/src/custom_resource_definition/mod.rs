//! CustomResourceDefinitions: their names are accepted, their kinds established, and when they go, their resources go first
//! (`apiextensions-apiserver/pkg/controller/{status,establish,finalizer}`).

mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use machinery::{Change, Informer, Outcome, Retry, WorkQueue};
use serde_json::json;

use crate::context::Context;
use crate::patience::Patience;
use crate::trim;
use plan::Taken;

/// The API server's own identity, as upstream's, where these controllers are part of the API server.
const NAME: &str = "apiextensions";
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Definitions by name, as this controller wrote them.
type Written = Arc<Mutex<HashMap<String, CustomResourceDefinition>>>;

struct Controller {
    client: Client,
    definitions: Arc<Informer<CustomResourceDefinition>>,
    /// What the cache does not show yet.
    written: Written,
    patience: Patience,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let written = Written::default();
    let (to, all, forget) = (queue.clone(), caches.definitions.clone(), written.clone());
    caches.definitions.on_change(move |change| {
        let object = change.object();
        let name = object.metadata.name.as_deref().unwrap_or_default();
        if !matches!(change, Change::Deleted(_)) {
            return to.add(name);
        }
        forget.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        // The names are free now: others of the group may have waited for them.
        for other in all.all().iter().filter(|other| other.spec.group == object.spec.group) {
            to.add(other.metadata.name.as_deref().unwrap_or_default());
        }
    });
    let controller = Controller {
        client: context.client(NAME),
        definitions: caches.definitions,
        written,
        patience: Patience::default(),
    };
    // One worker: two could give the same name away twice.
    context.spawn_workers(NAME, queue, 1, controller, |it, key| async move { it.reconcile(&key).await });
}

impl Controller {
    fn api(&self) -> Api<CustomResourceDefinition> {
        Api::all(self.client.clone())
    }

    async fn reconcile(&self, name: &str) -> Result<Outcome, Retry<kube::Error>> {
        let now = Timestamp::now();
        let Some(known) = self.definitions.get(name) else {
            self.patience.forget(name);
            return Ok(Outcome::Done);
        };
        // What has all the names that it asks for keeps them, whatever others have.
        if known.metadata.deletion_timestamp.is_none() && plan::status(&known, &Taken::default(), now).is_none() {
            return Ok(Outcome::Done);
        }
        let Some(definition) = self.api().get_opt(name).await? else { return Ok(Outcome::Done) };
        if definition.metadata.deletion_timestamp.is_some() {
            return self.clean_up(definition).await;
        }
        let mut status = plan::status(&definition, &self.taken(&definition), now);
        if status.as_ref().is_some_and(plan::is_refused) {
            // They may be free by now.
            let group = self.api().list(&ListParams::default()).await?.items;
            status = plan::status(&definition, &Taken::by(plan::others(&definition, group.iter())), now);
        }
        if let Some(status) = status {
            let changed = CustomResourceDefinition { status: Some(status), ..definition };
            self.write_status(name, &changed).await?;
            self.note(changed);
        }
        Ok(Outcome::Done)
    }

    /// The names that others of the group have: by the cache, and those that were given away just now.
    fn taken(&self, definition: &CustomResourceDefinition) -> Taken {
        let known = self.definitions.all();
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let names =
            |one: &CustomResourceDefinition| one.status.as_ref().and_then(|status| status.accepted_names.clone());
        written.retain(|name, one| self.definitions.get(name).is_none_or(|known| names(&known) != names(one)));
        Taken::by(plan::others(definition, known.iter().map(AsRef::as_ref).chain(written.values())))
    }

    fn note(&self, mut written: CustomResourceDefinition) {
        trim::definition(&mut written);
        let name = written.metadata.name.clone().unwrap_or_default();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(name, written);
    }

    async fn write_status(&self, name: &str, definition: &CustomResourceDefinition) -> Result<(), Retry<kube::Error>> {
        match self.api().replace_status(name, &PostParams::default(), definition).await {
            Err(error) if !machinery::is_not_found(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Deletes all resources of the kind, and lets the definition go when none is left.
    async fn clean_up(&self, definition: CustomResourceDefinition) -> Result<Outcome, Retry<kube::Error>> {
        let name = definition.metadata.name.clone().unwrap_or_default();
        let finalizers = definition.metadata.finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|one| one == CLEANUP) {
            return Ok(Outcome::Done);
        }
        let left = match served(&definition) {
            Some(resource) => self.empty(&resource, &definition.spec.scope).await?,
            None => 0,
        };
        if left > 0 {
            let why = ("InstanceDeletionInProgress", "CustomResource deletion is in progress");
            self.terminating(&name, definition, ("True", why)).await?;
            return Ok(Outcome::After(self.patience.next(&name, left)));
        }
        self.patience.forget(&name);
        let why = ("InstanceDeletionCompleted", "removed all instances");
        self.terminating(&name, definition, ("False", why)).await?;
        let left: Vec<&String> = finalizers.iter().filter(|one| *one != CLEANUP).collect();
        let patch = json!({ "metadata": { "finalizers": left } });
        match self.api().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if !machinery::is_not_found(&error) => Err(error.into()),
            _ => Ok(Outcome::Done),
        }
    }

    async fn terminating(
        &self,
        name: &str,
        mut definition: CustomResourceDefinition,
        (status, why): (&str, (&str, &str)),
    ) -> Result<(), Retry<kube::Error>> {
        let before = definition.status.clone();
        let conditions = definition.status.get_or_insert_default().conditions.get_or_insert_default();
        plan::set(conditions, plan::condition("Terminating", status, why, Timestamp::now()));
        if definition.status == before { Ok(()) } else { self.write_status(name, &definition).await }
    }

    /// Asks for the end of everything of a kind, and counts what is left.
    async fn empty(&self, resource: &ApiResource, scope: &str) -> Result<usize, kube::Error> {
        let all = Api::<PartialObjectMeta<DynamicObject>>::all_with(self.client.clone(), resource);
        let left = match all.list_metadata(&ListParams::default()).await {
            Ok(list) => list.items,
            // It is not served, and so there is nothing to be had.
            Err(error) if machinery::is_not_found(&error) => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut places: Vec<Option<String>> = left.iter().map(|object| object.metadata.namespace.clone()).collect();
        places.sort();
        places.dedup();
        for namespace in places {
            let api = match (&namespace, scope) {
                (Some(namespace), "Namespaced") => {
                    Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, resource)
                }
                _ => Api::<DynamicObject>::all_with(self.client.clone(), resource),
            };
            api.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        }
        if left.is_empty() {
            return Ok(0);
        }
        Ok(all.list_metadata(&ListParams::default()).await?.items.len())
    }
}

/// The kind in a version that is served; `None` where it was never established.
fn served(definition: &CustomResourceDefinition) -> Option<ApiResource> {
    let status = definition.status.as_ref()?;
    let established = status.conditions.iter().flatten().any(|c| c.type_ == "Established" && c.status == "True");
    let version = definition.spec.versions.iter().find(|version| version.served)?.name.clone();
    let names = status.accepted_names.as_ref().filter(|_| established)?;
    Some(ApiResource {
        group: definition.spec.group.clone(),
        api_version: format!("{}/{version}", definition.spec.group),
        version,
        kind: names.kind.clone(),
        plural: names.plural.clone(),
    })
}
