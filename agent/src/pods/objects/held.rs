//! Objects that pods of this node name: each is followed for as long as one of them does, as the
//! kubelet's `WatchBasedManager` does. A change is seen a moment later, and reading what is held asks nobody.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use volumes::{ObjectError, Reference};

use super::{ApiObjects, other};
use crate::client::is_not_found;
use crate::client::watch::{Change, Collection, follow_map};

/// How long a read waits for the first answer about an object that is held.
const FIRST: Duration = Duration::from_secs(1);

/// A kind whose objects can be held.
pub(super) trait Kind:
    DeserializeOwned
    + Clone
    + Debug
    + kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Send
    + Sync
    + 'static
{
    const SINGULAR: &'static str;

    /// `immutable`: it will not change, and need not be followed.
    fn is_immutable(&self) -> bool;
}

impl Kind for ConfigMap {
    const SINGULAR: &'static str = "configmap";

    fn is_immutable(&self) -> bool {
        self.immutable.unwrap_or(false)
    }
}

impl Kind for Secret {
    const SINGULAR: &'static str = "secret";

    fn is_immutable(&self) -> bool {
        self.immutable.unwrap_or(false)
    }
}

/// What the server said last.
#[derive(Clone)]
enum Known<K> {
    Nothing,
    Missing,
    There(Arc<K>),
}

impl<K: Kind> Known<K> {
    fn version(&self) -> Option<&str> {
        if let Self::There(object) = self { object.meta().resource_version.as_deref() } else { None }
    }

    fn is_unknown(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

type Key = (String, String);
type Holders = Arc<Mutex<Vec<Arc<Notify>>>>;

struct Entry<K> {
    known: watch::Receiver<Known<K>>,
    holders: Holders,
    task: AbortHandle,
}

impl<K> Drop for Entry<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The objects of one kind.
pub(super) struct Kept<K> {
    client: kube::Client,
    entries: Mutex<HashMap<Key, Entry<K>>>,
}

impl<K: Kind> Kept<K> {
    pub fn new(client: kube::Client) -> Self {
        Self { client, entries: Mutex::default() }
    }

    /// What is held as it was seen last, anything else as it is now.
    pub async fn read(&self, namespace: &str, name: &str) -> Result<K, ObjectError> {
        let missing = || ObjectError::NotFound { kind: K::SINGULAR, name: name.to_owned() };
        let held = lock(&self.entries).get(&(namespace.to_owned(), name.to_owned())).map(|entry| entry.known.clone());
        let Some(mut held) = held else {
            let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
            return api.get(name).await.map_err(|error| if is_not_found(&error) { missing() } else { other(&error) });
        };
        let first = tokio::time::timeout(FIRST, held.wait_for(|known| !known.is_unknown())).await;
        match first.map(|known| known.map(|known| known.clone())) {
            Ok(Ok(Known::There(object))) => Ok(K::clone(&object)),
            Ok(Ok(Known::Missing)) => Err(missing()),
            // The text is the kubelet's.
            _ => Err(ObjectError::Unavailable(format!(
                "failed to sync {} cache: timed out waiting for the condition",
                K::SINGULAR
            ))),
        }
    }

    fn hold(&self, key: Key, holder: &Arc<Notify>) {
        let mut entries = lock(&self.entries);
        let entry = entries.entry(key).or_insert_with_key(|(namespace, name)| self.follow(namespace, name));
        lock(&entry.holders).push(Arc::clone(holder));
    }

    fn release(&self, key: &Key, holder: &Arc<Notify>) {
        let mut entries = lock(&self.entries);
        let Some(entry) = entries.get(key) else { return };
        let mut holders = lock(&entry.holders);
        holders.retain(|other| !Arc::ptr_eq(other, holder));
        let unused = holders.is_empty();
        drop(holders);
        if unused {
            entries.remove(key);
        }
    }

    fn follow(&self, namespace: &str, name: &str) -> Entry<K> {
        let collection = Collection::of::<K>(Some(namespace)).fields(&format!("metadata.name={name}"));
        let changes = follow_map(self.client.clone(), collection, |object: K| Known::There(Arc::new(trim(object))));
        let (publish, known) = watch::channel(Known::Nothing);
        let holders = Holders::default();
        let task = tokio::spawn(absorb(changes, publish, Arc::clone(&holders))).abort_handle();
        Entry { known, holders, task }
    }
}

/// Who wrote the object when is of no use here.
fn trim<K: Kind>(mut object: K) -> K {
    let meta = object.meta_mut();
    *meta = ObjectMeta { resource_version: meta.resource_version.take(), ..ObjectMeta::default() };
    object
}

/// Tells the holders of each change; of the first answer nobody, for those who need it wait for it.
async fn absorb<K: Kind>(
    mut changes: tokio::sync::mpsc::Receiver<Change<Known<K>>>,
    publish: watch::Sender<Known<K>>,
    holders: Holders,
) {
    while let Some(change) = changes.recv().await {
        let now = match change {
            Change::Replaced(all) => all.into_iter().next().unwrap_or(Known::Missing),
            Change::Applied(known) => known,
            Change::Deleted(_) => Known::Missing,
        };
        let is_final = matches!(&now, Known::There(object) if object.is_immutable());
        let mut first = false;
        let changed = publish.send_if_modified(|known| {
            first = known.is_unknown();
            let changed = first || known.version() != now.version();
            *known = now;
            changed
        });
        if changed && !first {
            lock(&holders).iter().for_each(|holder| holder.notify_one());
        }
        if is_final {
            // The watch ends with its receiver; readers go on with what was published.
            return;
        }
    }
}

/// What one pod holds. Dropping it lets go.
pub struct Hold {
    objects: Arc<ApiObjects>,
    holder: Arc<Notify>,
    namespace: String,
    held: BTreeSet<Reference>,
}

impl Hold {
    /// Nothing yet.
    #[must_use]
    pub fn new(objects: Arc<ApiObjects>) -> Self {
        Self { objects, holder: Arc::default(), namespace: String::new(), held: BTreeSet::new() }
    }

    /// Holds exactly these objects of a namespace.
    pub fn set(&mut self, namespace: &str, wanted: BTreeSet<Reference>) {
        if self.namespace != namespace {
            self.clear();
            namespace.clone_into(&mut self.namespace);
        }
        for reference in self.held.difference(&wanted) {
            self.change(reference, false);
        }
        for reference in wanted.difference(&self.held) {
            self.change(reference, true);
        }
        self.held = wanted;
    }

    /// Holds nothing more.
    pub fn clear(&mut self) {
        for reference in std::mem::take(&mut self.held) {
            self.change(&reference, false);
        }
    }

    /// Waits until one of the objects has changed. Cancel-safe: a change is remembered.
    pub async fn changed(&self) {
        self.holder.notified().await;
    }

    fn change(&self, reference: &Reference, hold: bool) {
        let key = |name: &String| (self.namespace.clone(), name.clone());
        match (reference, hold) {
            (Reference::ConfigMap(name), true) => self.objects.config_maps.hold(key(name), &self.holder),
            (Reference::ConfigMap(name), false) => self.objects.config_maps.release(&key(name), &self.holder),
            (Reference::Secret(name), true) => self.objects.secrets.hold(key(name), &self.holder),
            (Reference::Secret(name), false) => self.objects.secrets.release(&key(name), &self.holder),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
