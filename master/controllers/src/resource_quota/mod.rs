//! ResourceQuotas: what is used of them (`pkg/controller/resourcequota`). Admission charges what comes; this counts anew when
//! something goes or ends, and when a quota changes.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::pod::is_terminal;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::{Api, Client, Resource as _};
use machinery::{Change, Outcome, Retry, WorkQueue, key_of, split_key};
use reflector::{Collection, Metadata, Reflector, Told};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::context::{Caches, Context};
use crate::discovery;

const NAME: &str = "resourcequota-controller";
const WORKERS: usize = 4;
/// Everything is counted anew now and then (`--resource-quota-sync-period`).
const RESYNC: Duration = Duration::from_secs(300);

/// When what was counted is less than what was charged, it is counted once more: a charge whose object was not in the
/// store yet may have been taken off.
const RECOUNT: Duration = Duration::from_secs(1);

/// How many resources may wait to be watched; who finds more waits.
const WATCHES: usize = 16;

type Place = (String, String);

struct Controller {
    client: Client,
    /// The resources whose deletions are watched, and how to ask for them.
    watched: Mutex<HashMap<Place, ApiResource>>,
    /// Takes what is to be watched from now on.
    found: mpsc::Sender<ApiResource>,
}

/// What wakes quotas.
#[derive(Clone)]
struct Waker {
    caches: Caches,
    queue: Arc<WorkQueue>,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let to = queue.clone();
    caches.quotas.on_change(move |change| {
        if is_to_be_counted(change.old().map(Arc::as_ref), change.object()) && !matches!(change, Change::Deleted(_)) {
            to.add(key_of(&change.object().metadata));
        }
    });
    let waker = Waker { caches: caches.clone(), queue: queue.clone() };
    let on_end = waker.clone();
    caches.pods.on_change(move |change| {
        // A pod that ends uses nothing any more; those that go are seen by the watches below.
        if is_terminal(change.object()) && change.old().is_some_and(|old| !is_terminal(old)) {
            on_end.wake(change.object().metadata.namespace.as_deref());
        }
    });
    let (found, resources) = mpsc::channel(WATCHES);
    let client = context.client(NAME);
    let controller = Controller { client: client.clone(), watched: Mutex::default(), found };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
    context.spawn_synced(follow_all(client, resources, waker));
}

impl Waker {
    /// Has all quotas of a namespace counted.
    fn wake(&self, namespace: Option<&str>) {
        for quota in self.caches.quotas.in_namespace(namespace.unwrap_or_default()) {
            self.queue.add(key_of(&quota.metadata));
        }
    }
}

/// A quota is counted when it is new and when its bounds change, never because of what admission charged to it: that
/// stands in the status before the object is in the store, so that a count between the two would take it off again.
fn is_to_be_counted(old: Option<&ResourceQuota>, new: &ResourceQuota) -> bool {
    let hard = |quota: &ResourceQuota| quota.status.as_ref().and_then(|status| status.hard.clone());
    old.is_none_or(|old| old.spec != new.spec || hard(old) != hard(new))
}

/// Follows each resource that is found, for ever.
async fn follow_all(client: Client, mut resources: mpsc::Receiver<ApiResource>, waker: Waker) {
    let mut watches = JoinSet::new();
    while let Some(resource) = resources.recv().await {
        watches.spawn(follow(client.clone(), resource, waker.clone()));
    }
}

/// Wakes the quotas of a namespace when an object in it goes.
async fn follow(client: Client, resource: ApiResource, waker: Waker) {
    let collection = Collection::all(&DynamicObject::url_path(&resource, None));
    let mut reflector = Reflector::of_metadata(client, collection);
    loop {
        if let Told::Deleted(Metadata { metadata }) = reflector.next().await {
            waker.wake(metadata.namespace.as_deref());
        }
    }
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Retry<kube::Error>> {
        let (namespace, name) = split_key(key);
        let api = Api::<ResourceQuota>::namespaced(self.client.clone(), namespace);
        // Admission writes the same status: what it wrote last must be known.
        let Some(quota) = api.get_opt(name).await? else { return Ok(Outcome::Done) };
        let shown = serde_json::to_value(&quota).map_err(|error| Retry::Failed(kube::Error::SerdeError(error)))?;
        let mut objects = BTreeMap::new();
        for place in plan::counted(&shown).into_keys() {
            if let Some(resource) = self.resource(&place).await? {
                objects.insert(place, self.list(namespace, &resource).await?);
            }
        }
        let Some(status) = plan::status(&shown, &objects) else { return Ok(Outcome::After(RESYNC)) };
        let again = if plan::lowers(&status, &shown) { RECOUNT } else { RESYNC };
        let status = serde_json::from_value(status).map_err(|error| Retry::Failed(kube::Error::SerdeError(error)))?;
        let changed = ResourceQuota { status: Some(status), ..quota };
        match api.replace_status(name, &PostParams::default(), &changed).await {
            Err(error) if !machinery::is_not_found(&error) => Err(error.into()),
            _ => Ok(Outcome::After(again)),
        }
    }

    async fn list(&self, namespace: &str, resource: &ApiResource) -> Result<Vec<Value>, kube::Error> {
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, resource);
        let list = match api.list(&ListParams::default()).await {
            Ok(list) => list.items,
            Err(error) if machinery::is_not_found(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        list.iter().map(|object| serde_json::to_value(object).map_err(kube::Error::SerdeError)).collect()
    }

    /// How to ask for a resource; whoever is asked for is watched from then on. `None` where there is no such resource.
    async fn resource(&self, place: &Place) -> Result<Option<ApiResource>, kube::Error> {
        if let Some(known) = self.watched.lock().unwrap_or_else(PoisonError::into_inner).get(place) {
            return Ok(Some(known.clone()));
        }
        let kinds = discovery::kinds(&self.client).await?.kinds;
        let is_it =
            |kind: &&discovery::KnownKind| (&kind.resource.group, &kind.resource.plural) == (&place.0, &place.1);
        let Some(kind) = kinds.iter().find(is_it) else { return Ok(None) };
        let resource = kind.resource.clone();
        let is_new =
            self.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone(), resource.clone());
        if is_new.is_none() {
            // The receiver lives as long as the control plane does.
            let _ = self.found.send(resource.clone()).await;
        }
        Ok(Some(resource))
    }
}
