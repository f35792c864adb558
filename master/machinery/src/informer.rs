//! One in-memory copy of a kind, kept up to date by a watch that resumes where it broke.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, Resource};
use reflector::{Collection, Reflector, Told};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// What an informer can hold: any typed kind.
pub trait Kind: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static {}
impl<K> Kind for K where K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static {}

/// What happened to one object.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// It is new to this cache.
    Added(&'a Arc<K>),
    /// It replaced an older version.
    Updated(&'a Arc<K>, &'a Arc<K>),
    /// It is gone; the last known version.
    Deleted(&'a Arc<K>),
}

impl<'a, K> Change<'a, K> {
    /// The newest known version.
    #[must_use]
    pub fn object(&self) -> &'a Arc<K> {
        match self {
            Self::Added(object) | Self::Updated(_, object) | Self::Deleted(object) => object,
        }
    }

    /// The version before, when there was one.
    #[must_use]
    pub fn old(&self) -> Option<&'a Arc<K>> {
        match self {
            Self::Updated(old, _) => Some(old),
            Self::Added(_) | Self::Deleted(_) => None,
        }
    }
}

type Handler<K> = Box<dyn Fn(Change<'_, K>) + Send + Sync>;
type Index<K> = fn(&K) -> Vec<String>;

struct State<K> {
    objects: BTreeMap<String, Arc<K>>,
    index: HashMap<String, HashSet<String>>,
}

/// A cache of all objects of one kind, shared by everyone who asks about that kind.
///
/// Handlers are called in order, from the one task that runs the watch, after the cache holds the change; they must
/// not block. What `trim` removes is never kept in memory.
pub struct Informer<K> {
    state: RwLock<State<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
    trim: fn(&mut K),
    index: Index<K>,
}

impl<K: Kind> Informer<K> {
    /// An empty cache. `index` names the groups that an object can be found by with [`Informer::indexed`].
    #[must_use]
    pub fn new(trim: fn(&mut K), index: Index<K>) -> Arc<Self> {
        Arc::new(Self {
            state: RwLock::new(State { objects: BTreeMap::new(), index: HashMap::new() }),
            handlers: RwLock::new(Vec::new()),
            synced: watch::Sender::new(false),
            trim,
            index,
        })
    }

    /// A cache that is not indexed.
    #[must_use]
    pub fn plain(trim: fn(&mut K)) -> Arc<Self> {
        Self::new(trim, |_| Vec::new())
    }

    /// Adds a handler. Add all of them before [`Informer::run`], so that none misses the first list.
    pub fn on_change(&self, handler: impl Fn(Change<'_, K>) + Send + Sync + 'static) {
        self.handlers.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(handler));
    }

    /// The object with this key (`namespace/name`, or `name` for cluster-scoped kinds).
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Arc<K>> {
        self.read().objects.get(key).cloned()
    }

    /// All objects.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    /// All objects of one namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let first = format!("{namespace}/");
        let state = self.read();
        let range = state.objects.range(first.clone()..).take_while(|(key, _)| key.starts_with(&first));
        range.map(|(_, object)| object.clone()).collect()
    }

    /// The objects for which the index function named `group`.
    #[must_use]
    pub fn indexed(&self, group: &str) -> Vec<Arc<K>> {
        let state = self.read();
        let keys = state.index.get(group).into_iter().flatten();
        keys.filter_map(|key| state.objects.get(key).cloned()).collect()
    }

    /// Waits until the first list is in the cache.
    pub async fn synced(&self) {
        // The sender lives in self, so that waiting cannot fail while self is borrowed.
        let _ = self.synced.subscribe().wait_for(|done| *done).await;
    }

    /// Lists and watches for ever. Dropping the future ends it.
    pub async fn run(self: Arc<Self>, client: Client, collection: Collection) {
        let mut reflector = Reflector::new(client, collection);
        let mut listed = HashSet::new();
        loop {
            match reflector.next::<K>().await {
                Told::Page { items, is_first, is_last } => {
                    if is_first {
                        listed.clear();
                    }
                    for object in items {
                        listed.insert(key_of(object.meta()));
                        self.apply(object);
                    }
                    if is_last {
                        self.remove_unlisted(&listed);
                        listed = HashSet::new();
                        self.synced.send_replace(true);
                    }
                }
                Told::Applied(object) => self.apply(object),
                Told::Deleted(object) => self.delete(&key_of(object.meta())),
            }
        }
    }

    /// Puts an object into the cache as if it had been watched.
    pub fn apply(&self, mut object: K) {
        (self.trim)(&mut object);
        let key = key_of(object.meta());
        let groups = (self.index)(&object);
        let object = Arc::new(object);
        let old = {
            let mut state = self.write();
            let old = state.objects.insert(key.clone(), object.clone());
            if let Some(old) = &old {
                self.unindex(&mut state, &key, old);
            }
            for group in groups {
                state.index.entry(group).or_default().insert(key.clone());
            }
            old
        };
        match &old {
            None => self.tell(|| Change::Added(&object)),
            Some(old) if old.meta().uid != object.meta().uid => {
                self.tell(|| Change::Deleted(old));
                self.tell(|| Change::Added(&object));
            }
            Some(old) if old.meta().resource_version == object.meta().resource_version => {}
            Some(old) => self.tell(|| Change::Updated(old, &object)),
        }
    }

    /// Removes an object from the cache as if its deletion had been watched.
    pub fn delete(&self, key: &str) {
        let old = {
            let mut state = self.write();
            let old = state.objects.remove(key);
            if let Some(old) = &old {
                self.unindex(&mut state, key, old);
            }
            old
        };
        if let Some(old) = old {
            self.tell(|| Change::Deleted(&old));
        }
    }

    fn remove_unlisted(&self, listed: &HashSet<String>) {
        let gone: Vec<String> = self.read().objects.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        for key in gone {
            self.delete(&key);
        }
    }

    fn unindex(&self, state: &mut State<K>, key: &str, old: &K) {
        for group in (self.index)(old) {
            if let Some(keys) = state.index.get_mut(&group) {
                keys.remove(key);
                if keys.is_empty() {
                    state.index.remove(&group);
                }
            }
        }
    }

    fn tell<'a>(&self, change: impl Fn() -> Change<'a, K>)
    where
        K: 'a,
    {
        for handler in self.handlers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            // The cache is everybody's: what one of them cannot take must not end it.
            if catch_unwind(AssertUnwindSafe(|| handler(change()))).is_err() {
                tracing::error!(kind = %K::kind(&()), key = key_of(change().object().meta()), "a handler panicked");
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State<K>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<K>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `namespace/name`, or `name` for cluster-scoped objects.
#[must_use]
pub fn key_of(meta: &ObjectMeta) -> String {
    let name = meta.name.as_deref().unwrap_or_default();
    match &meta.namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// The namespace and name of a key; the namespace is empty for cluster-scoped objects.
#[must_use]
pub fn split_key(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

/// Drops what no controller reads and what is most of an object's metadata.
pub fn trim_metadata(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        if annotations.is_empty() {
            meta.annotations = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(name: &str, uid: &str, version: &str) -> ConfigMap {
        let metadata = ObjectMeta {
            namespace: Some("ns".into()),
            name: Some(name.into()),
            uid: Some(uid.into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    #[test]
    fn handlers_see_adds_updates_replacements_and_deletions_once() {
        let informer = Informer::<ConfigMap>::new(|_| (), |map| map.metadata.uid.clone().into_iter().collect());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        informer.on_change(move |change| {
            let word = match change {
                Change::Added(object) => format!("+{}", object.metadata.uid.as_deref().unwrap()),
                Change::Updated(_, object) => format!("={}", object.metadata.uid.as_deref().unwrap()),
                Change::Deleted(object) => format!("-{}", object.metadata.uid.as_deref().unwrap()),
            };
            log.lock().unwrap().push(word);
        });
        informer.apply(object("a", "1", "1"));
        informer.apply(object("a", "1", "1"));
        informer.apply(object("a", "1", "2"));
        informer.apply(object("a", "2", "3"));
        assert_eq!(informer.indexed("1").len(), 0);
        assert_eq!(informer.indexed("2").len(), 1);
        informer.remove_unlisted(&HashSet::new());
        assert_eq!(*seen.lock().unwrap(), ["+1", "=1", "-1", "+2", "-2"]);
        assert!(informer.all().is_empty() && informer.indexed("2").is_empty());
    }

    #[test]
    fn a_handler_that_panics_is_alone_with_it() {
        let informer = Informer::<ConfigMap>::plain(|_| ());
        let seen = Arc::new(Mutex::new(0));
        let count = seen.clone();
        informer.on_change(|_| panic!("beyond me"));
        informer.on_change(move |_| *count.lock().unwrap() += 1);
        informer.apply(object("a", "1", "1"));
        informer.delete("ns/a");
        assert_eq!(*seen.lock().unwrap(), 2);
    }

    #[test]
    fn a_namespace_does_not_leak_into_its_neighbour() {
        let informer = Informer::<ConfigMap>::plain(|_| ());
        for namespace in ["a", "a-b", "b"] {
            let mut map = object("x", namespace, "1");
            map.metadata.namespace = Some(namespace.into());
            informer.apply(map);
        }
        assert_eq!(informer.in_namespace("a").len(), 1);
    }
}
