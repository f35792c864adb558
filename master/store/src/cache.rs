//! Every live object in memory, with the recent past of each resource.
//!
//! A resource has an ordered map of its objects and a ring of its recent events. The state at a past revision is the
//! present with those events undone, so that old versions cost nothing until they are asked for.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::ring::Ring;
use crate::watch::{Event, Filter, Start, TooOld, Watch, WatchRequest, Watcher};
use crate::{Entry, Key};

/// What to list.
pub struct ListRequest<'a> {
    pub resource: &'a str,
    /// Empty for all namespaces.
    pub namespace: &'a str,
    /// Keys after this one only: where the last page ended.
    pub after: Option<&'a str>,
    /// 0 for no limit.
    pub limit: usize,
    /// The state at this revision; the present when `None`.
    pub at: Option<u64>,
    pub filter: Option<&'a Filter>,
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    pub entries: Vec<Arc<Entry>>,
    pub revision: u64,
    /// How many keys follow the page, filter or not; `after` of the next page is the last key looked at.
    pub remaining: usize,
    pub last: Option<Key>,
}

/// Why a list cannot be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// History before `oldest` is gone.
    #[error("revision {asked} is older than {oldest}, the oldest known")]
    TooOld { asked: u64, oldest: u64 },
    #[error("revision {asked} is newer than {current}, the current one")]
    TooNew { asked: u64, current: u64 },
}

/// Everything that is served. Changes come from one thread, in the order of revisions.
pub(crate) struct Cache {
    resources: RwLock<HashMap<Box<str>, Arc<Mutex<Resource>>>>,
    revision: AtomicU64,
    /// What a resource that is first seen later starts its history with.
    compacted: AtomicU64,
}

/// How much there is of a resource.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub objects: usize,
    /// Of their JSON.
    pub bytes: usize,
}

#[derive(Default)]
struct Resource {
    live: BTreeMap<Key, Arc<Entry>>,
    /// Of all that is live.
    bytes: usize,
    ring: Ring,
    watchers: Vec<Watcher>,
}

impl Cache {
    pub(crate) fn new(revision: u64, compacted: u64) -> Self {
        Cache { resources: RwLock::default(), revision: AtomicU64::new(revision), compacted: AtomicU64::new(compacted) }
    }

    /// The revision up to which everything is visible.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Deletions at the end of the log may be gone, but their revisions were used.
    pub(crate) fn advance(&self, revision: u64) {
        self.revision.fetch_max(revision, Ordering::AcqRel);
    }

    fn resource(&self, name: &str) -> Arc<Mutex<Resource>> {
        if let Some(resource) = self.resources.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(resource);
        }
        let mut resources = self.resources.write().unwrap_or_else(PoisonError::into_inner);
        let forgotten = self.compacted.load(Ordering::Acquire);
        let new = || Arc::new(Mutex::new(Resource { ring: Ring::new(forgotten), ..Resource::default() }));
        Arc::clone(resources.entry(name.into()).or_insert_with(new))
    }

    /// Makes one committed change visible and hands it to the watchers. Returns the version that is gone or replaced.
    pub(crate) fn apply(&self, revision: u64, key: &Key, new: Option<Arc<Entry>>) -> Option<Arc<Entry>> {
        let resource = self.resource(key.resource());
        let mut resource = lock(&resource);
        let old = match &new {
            Some(entry) => resource.live.insert(key.clone(), Arc::clone(entry)),
            None => resource.live.remove(key),
        };
        let bytes = |entry: &Option<Arc<Entry>>| entry.as_ref().map_or(0, |entry| entry.json().len());
        resource.bytes = resource.bytes.saturating_add(bytes(&new)).saturating_sub(bytes(&old));
        if old.is_some() || new.is_some() {
            resource.publish(Arc::new(Event::new(revision, old.clone(), new)));
        }
        // Under the lock: a list that sees the change must not carry an older revision.
        self.revision.fetch_max(revision, Ordering::AcqRel);
        old
    }

    /// Drops the history up to `revision`.
    pub(crate) fn forget(&self, revision: u64) {
        self.compacted.fetch_max(revision, Ordering::AcqRel);
        let resources: Vec<_> =
            self.resources.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for resource in resources {
            lock(&resource).forget(revision);
        }
    }

    /// Visits every live object.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Arc<Entry>)) {
        let resources: Vec<_> =
            self.resources.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for resource in resources {
            let entries: Vec<_> = lock(&resource).live.values().cloned().collect();
            entries.iter().for_each(&mut visit);
        }
    }

    pub(crate) fn counts(&self) -> Vec<(String, usize)> {
        let resources = self.resources.read().unwrap_or_else(PoisonError::into_inner);
        let mut counts: Vec<_> = resources.iter().map(|(name, r)| (name.to_string(), lock(r).live.len())).collect();
        counts.sort();
        counts
    }

    pub(crate) fn size(&self, resource: &str) -> Size {
        let resource = self.resource(resource);
        let resource = lock(&resource);
        Size { objects: resource.live.len(), bytes: resource.bytes }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        lock(&self.resource(key.resource())).live.get(key).cloned()
    }

    pub(crate) fn list(&self, request: &ListRequest<'_>) -> Result<Page, ListError> {
        let resource = self.resource(request.resource);
        let resource = lock(&resource);
        let current = self.revision();
        let revision = request.at.unwrap_or(current);
        if revision > current {
            return Err(ListError::TooNew { asked: revision, current });
        }
        let oldest = resource.ring.forgotten();
        if revision < oldest {
            return Err(ListError::TooOld { asked: revision, oldest });
        }
        let prefix = Key::prefix(request.resource, request.namespace);
        let undone = resource.undone_since(revision, &prefix);
        let mut entries = resource.entries(&prefix, request.after, &undone);
        if request.limit > 0 && request.filter.is_none() {
            // What does not come into the page is only counted: commits wait meanwhile.
            let first: Vec<_> = entries.by_ref().take(request.limit).cloned().collect();
            let last = first.last().map(|entry| entry.key.clone());
            return Ok(Page { entries: first, revision, remaining: entries.count(), last });
        }
        let entries = entries.cloned().collect();
        drop(resource);
        Ok(page(entries, revision, request))
    }

    pub(crate) fn watch(&self, request: WatchRequest) -> Result<Watch, TooOld> {
        let resource = self.resource(&request.resource);
        let mut resource = lock(&resource);
        let current = self.revision();
        let prefix = Key::prefix(&request.resource, &request.namespace);
        let (initial, backlog, from) = match request.start {
            Start::Now => (Vec::new(), Vec::new(), current),
            Start::State => (resource.present(&prefix), Vec::new(), current),
            Start::After(revision) if revision < resource.ring.forgotten() => {
                return Err(TooOld { asked: revision, oldest: resource.ring.forgotten() });
            }
            Start::After(revision) => (Vec::new(), resource.ring.since(revision).cloned().collect(), revision),
        };
        let (watcher, watch) = Watch::new(request, prefix, (initial, backlog), (from, current));
        resource.watchers.push(watcher);
        Ok(watch)
    }
}

impl Resource {
    fn publish(&mut self, event: Arc<Event>) {
        self.watchers.retain(|watcher| watcher.offer(&event));
        self.ring.push(event);
    }

    fn forget(&mut self, revision: u64) {
        self.ring.forget(revision);
        self.watchers.retain(|watcher| !watcher.is_gone());
    }

    /// For each key that changed after `revision`, what it was then.
    fn undone_since(&self, revision: u64, prefix: &str) -> BTreeMap<Key, Option<Arc<Entry>>> {
        let mut undone = BTreeMap::new();
        for event in self.ring.since(revision) {
            if let Some(key) = event.key().filter(|key| key.as_str().starts_with(prefix)) {
                undone.entry(key.clone()).or_insert_with(|| event.old.clone());
            }
        }
        undone
    }

    fn present(&self, prefix: &str) -> Vec<Arc<Entry>> {
        self.entries(prefix, None, &BTreeMap::new()).cloned().collect()
    }

    /// What is there, and what was there before it was undone, in the order of keys.
    fn entries<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        undone: &'a BTreeMap<Key, Option<Arc<Entry>>>,
    ) -> impl Iterator<Item = &'a Arc<Entry>> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let here = move |key: &Key| key.as_str().starts_with(prefix);
        let range = (start, Bound::Unbounded);
        let present = self.live.range::<str, _>(range).take_while(move |(key, _)| here(key));
        let undone = undone.range::<str, _>(range).take_while(move |(key, _)| here(key));
        merged(present, undone)
    }
}

/// Both in the order of keys; what it was before stands for what it is.
fn merged<'a>(
    present: impl Iterator<Item = (&'a Key, &'a Arc<Entry>)>,
    undone: impl Iterator<Item = (&'a Key, &'a Option<Arc<Entry>>)>,
) -> impl Iterator<Item = &'a Arc<Entry>> {
    let (mut present, mut undone) = (present.peekable(), undone.peekable());
    std::iter::from_fn(move || {
        loop {
            let Some((next, _)) = undone.peek().copied() else { return present.next().map(|(_, entry)| entry) };
            if let Some((_, entry)) = present.next_if(|(key, _)| *key < next) {
                return Some(entry);
            }
            present.next_if(|(key, _)| *key == next);
            if let Some((_, Some(entry))) = undone.next() {
                return Some(entry);
            }
        }
    })
}

/// Cuts one page out of all that follows its start.
fn page(entries: Vec<Arc<Entry>>, revision: u64, request: &ListRequest<'_>) -> Page {
    let total = entries.len();
    let limit = if request.limit == 0 { usize::MAX } else { request.limit };
    let mut page = Page { entries: Vec::new(), revision, remaining: 0, last: None };
    for (index, entry) in entries.into_iter().enumerate() {
        if page.entries.len() == limit {
            page.remaining = total - index;
            break;
        }
        page.last = Some(entry.key.clone());
        if request.filter.is_none_or(|filter| filter(&entry)) {
            page.entries.push(entry);
        }
    }
    page
}

fn lock(resource: &Mutex<Resource>) -> MutexGuard<'_, Resource> {
    resource.lock().unwrap_or_else(PoisonError::into_inner)
}
