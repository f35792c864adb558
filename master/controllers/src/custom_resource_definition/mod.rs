//! CustomResourceDefinitions: their names are accepted, their kinds established, and when they go, their resources go first
//! (`apiextensions-apiserver/pkg/controller/{status,establish,finalizer}`).

mod plan;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use machinery::{Change, Outcome, Retry, WorkQueue};
use serde_json::json;

use crate::context::Context;
use plan::Taken;

/// The API server's own identity, as upstream's, where these controllers are part of the API server.
const NAME: &str = "apiextensions";
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// When to look again whether the resources are gone.
const SOON: Duration = Duration::from_secs(1);

struct Controller {
    client: Client,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let (to, all) = (queue.clone(), caches.definitions.clone());
    caches.definitions.on_change(move |change| {
        let object = change.object();
        if !matches!(change, Change::Deleted(_)) {
            return to.add(object.metadata.name.as_deref().unwrap_or_default());
        }
        // The names are free now: others of the group may have waited for them.
        for other in all.all().iter().filter(|other| other.spec.group == object.spec.group) {
            to.add(other.metadata.name.as_deref().unwrap_or_default());
        }
    });
    let controller = Controller { client: context.client(NAME) };
    // One worker: two could give the same name away twice.
    context.spawn_workers(NAME, queue, 1, controller, |it, key| async move { it.reconcile(&key).await });
}

impl Controller {
    fn api(&self) -> Api<CustomResourceDefinition> {
        Api::all(self.client.clone())
    }

    async fn reconcile(&self, name: &str) -> Result<Outcome, Retry<kube::Error>> {
        // What was written a moment ago must count, so that not the cache is asked.
        let Some(definition) = self.api().get_opt(name).await? else { return Ok(Outcome::Done) };
        if definition.metadata.deletion_timestamp.is_some() {
            return self.clean_up(definition).await;
        }
        let group = self.api().list(&ListParams::default()).await?.items;
        let others = group
            .iter()
            .filter(|o| o.spec.group == definition.spec.group && o.metadata.name != definition.metadata.name);
        if let Some(status) = plan::status(&definition, &Taken::by(others), Timestamp::now()) {
            let changed = CustomResourceDefinition { status: Some(status), ..definition };
            self.write_status(name, &changed).await?;
        }
        Ok(Outcome::Done)
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
        if let Some(resource) = served(&definition)
            && !self.empty(&resource, &definition.spec.scope).await?
        {
            let why = ("InstanceDeletionInProgress", "CustomResource deletion is in progress");
            self.terminating(&name, definition, ("True", why)).await?;
            return Ok(Outcome::After(SOON));
        }
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

    /// Asks for the end of everything of a kind; true when nothing is left.
    async fn empty(&self, resource: &ApiResource, scope: &str) -> Result<bool, kube::Error> {
        let all = Api::<PartialObjectMeta<DynamicObject>>::all_with(self.client.clone(), resource);
        let left = match all.list_metadata(&ListParams::default()).await {
            Ok(list) => list.items,
            // It is not served, and so there is nothing to be had.
            Err(error) if machinery::is_not_found(&error) => return Ok(true),
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
            return Ok(true);
        }
        Ok(all.list_metadata(&ListParams::default()).await?.items.is_empty())
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
