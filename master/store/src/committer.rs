//! Group commit: one thread turns the writes that wait into one durable transaction.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::cache::{Cache, Size};
use crate::history::History;
use crate::{
    Backend, BackendError, Entry, Facets, Key, ListError, ListRequest, Mismatch, Page, Record, TooOld, Watch,
    WatchRequest, Write,
};

/// How often history is looked at for compaction.
const TICK: Duration = Duration::from_secs(10);

/// What the store must know about objects, and who follows them. Both run under the order of commits: they must be quick
/// and must not call back into the store.
pub trait Hooks: Send + Sync + 'static {
    /// What selectors look at in a stored object; asked only when the store is loaded.
    fn facets(&self, key: &Key, json: &[u8]) -> Facets;

    /// An object was committed, or is gone; called for every object at start, then in the order of revisions.
    fn committed(&self, key: &Key, json: Option<&[u8]>);
}

/// Sizes and times of a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long history is kept for watches and paginated lists.
    pub history: Duration,
    /// How many revisions of history are kept at most.
    pub history_revisions: u64,
    /// How large the versions may be that were written since the oldest of history.
    pub history_bytes: u64,
    /// How many writes may wait; further ones wait for a place.
    pub queue: usize,
    /// How many writes one transaction takes at most.
    pub batch: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            history: Duration::from_secs(300),
            history_revisions: 200_000,
            history_bytes: 256 << 20,
            queue: 1_024,
            batch: 256,
        }
    }
}

/// A write with what selectors look at in its object.
#[derive(Debug, Clone)]
pub struct Proposal {
    pub write: Write,
    pub facets: Facets,
}

/// Why a write was not committed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// The key, or that of an object that the write needs, is not as the write expects it; `current` is its revision, `None`
    /// when there is no such object.
    #[error("{key} is at revision {current:?}")]
    Mismatch { key: Key, current: Option<u64> },
    /// It is not known whether the write is durable.
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("the store is closed")]
    Closed,
}

/// A committed write: the new version of the object, or the one that was deleted.
type Outcome = Result<Arc<Entry>, CommitError>;

struct Waiting {
    proposal: Proposal,
    done: oneshot::Sender<Outcome>,
    _place: OwnedSemaphorePermit,
}

/// The store: reads from memory, writes through the committer thread, which ends when the store is dropped, or when the backend
/// takes no more writes.
pub struct Store {
    cache: Arc<Cache>,
    queue: Sender<Waiting>,
    places: Arc<Semaphore>,
    /// Held by the committer at its other end.
    committing: watch::Receiver<()>,
}

impl Store {
    /// Loads everything into memory and starts the committer. Blocks.
    pub fn open(backend: Arc<dyn Backend>, hooks: Arc<dyn Hooks>, options: Options) -> Result<Self, BackendError> {
        let cache = Arc::new(load(backend.as_ref(), hooks.as_ref())?);
        cache.for_each(|entry| hooks.committed(&entry.key, Some(entry.json())));
        let (queue, waiting) = mpsc::channel();
        let places = Arc::new(Semaphore::new(options.queue));
        let history = History::new(cache.revision());
        let committer = Committer { backend, hooks, cache: Arc::clone(&cache), history, options };
        let (alive, committing) = watch::channel(());
        thread::Builder::new()
            .name("store-commit".into())
            .spawn(move || {
                committer.run(&waiting);
                drop((waiting, alive));
            })
            .map_err(|error| BackendError { operation: "starting", reason: error.to_string(), is_final: true })?;
        Ok(Store { cache, queue, places, committing })
    }

    /// Commits one write. When this returns the write is durable and every read sees it. A deletion answers with the last
    /// version. Dropping the future does not undo the write.
    pub async fn commit(&self, proposal: Proposal) -> Result<Arc<Entry>, CommitError> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| CommitError::Closed)?;
        let (done, outcome) = oneshot::channel();
        self.queue.send(Waiting { proposal, done, _place: place }).map_err(|_| CommitError::Closed)?;
        outcome.await.map_err(|_| CommitError::Closed)?
    }

    /// Whether writes are still taken: false when the committer has ended.
    pub fn is_open(&self) -> bool {
        self.committing.has_changed().is_ok()
    }

    /// Resolves when writes are no longer taken.
    pub async fn closed(&self) {
        let mut committing = self.committing.clone();
        while committing.changed().await.is_ok() {}
    }

    /// How many objects there are of each resource, in the order of names.
    pub fn counts(&self) -> Vec<(String, usize)> {
        self.cache.counts()
    }

    /// How much there is of one resource.
    pub fn size(&self, resource: &str) -> Size {
        self.cache.size(resource)
    }

    /// The revision up to which every change is visible.
    pub fn revision(&self) -> u64 {
        self.cache.revision()
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.cache.get(key)
    }

    pub fn list(&self, request: &ListRequest<'_>) -> Result<Page, ListError> {
        self.cache.list(request)
    }

    /// All objects of a resource as they were at a revision.
    pub(crate) fn all_at(&self, resource: &str, revision: u64) -> Result<Vec<Arc<Entry>>, ListError> {
        let request = ListRequest { resource, namespace: "", after: None, limit: 0, at: Some(revision), filter: None };
        self.cache.list(&request).map(|page| page.entries)
    }

    pub fn watch(&self, request: WatchRequest) -> Result<Watch, TooOld> {
        self.cache.watch(request)
    }
}

/// Replays the log: what lived at the compacted revision, then the history that watches may ask for.
fn load(backend: &dyn Backend, hooks: &dyn Hooks) -> Result<Cache, BackendError> {
    let cache = Cache::new(0, 0);
    let position = backend.load(&mut |record: Record| {
        let entry = record.value.as_ref().map(|value| {
            let facets = hooks.facets(&record.key, &value.json);
            Arc::new(Entry::new(record.key.clone(), record.revision, value, facets))
        });
        cache.apply(record.revision, &record.key, entry);
    })?;
    cache.advance(position.revision);
    cache.forget(position.compacted);
    Ok(cache)
}

struct Committer {
    backend: Arc<dyn Backend>,
    hooks: Arc<dyn Hooks>,
    cache: Arc<Cache>,
    history: History,
    options: Options,
}

impl Committer {
    fn run(mut self, waiting: &Receiver<Waiting>) {
        let mut tick = Instant::now() + TICK;
        loop {
            let done = match waiting.recv_timeout(tick.saturating_duration_since(Instant::now())) {
                Ok(first) => self.commit(first, waiting),
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let now = Instant::now();
            let is_due = now >= tick || self.history.is_too_large(&self.options);
            if now >= tick {
                tick = now + TICK;
            }
            let done = done.and_then(|()| if is_due { self.compact(now) } else { Ok(()) });
            if done.is_err_and(|error| error.is_final) {
                tracing::error!("no more writes are taken: the store must be opened anew");
                return;
            }
        }
    }

    fn commit(&mut self, first: Waiting, waiting: &Receiver<Waiting>) -> Result<(), BackendError> {
        let rest = std::iter::from_fn(|| waiting.try_recv().ok());
        let batch: Vec<Waiting> =
            std::iter::once(first).chain(rest.take(self.options.batch.saturating_sub(1))).collect();
        let mut writes = Vec::with_capacity(batch.len());
        let mut askers = Vec::with_capacity(batch.len());
        for Waiting { proposal, done, _place } in batch {
            writes.push(proposal.write);
            askers.push((proposal.facets, done, _place));
        }
        match self.backend.commit(&writes) {
            Ok(results) => {
                let made = writes.iter().zip(&results).filter(|(_, result)| result.is_ok());
                let bytes = made.map(|(write, _)| write.value.as_ref().map_or(0, |value| value.json.len())).sum();
                for ((write, (facets, done, _)), result) in writes.into_iter().zip(askers).zip(results) {
                    // The asker may have gone away.
                    let _ = done.send(self.apply(write, facets, result));
                }
                self.history.grew(bytes, self.cache.revision(), &self.options);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "writes were not committed");
                for (_, done, _) in askers {
                    let _ = done.send(Err(error.clone().into()));
                }
                Err(error)
            }
        }
    }

    fn apply(&self, write: Write, facets: Facets, result: Result<u64, Mismatch>) -> Outcome {
        let Write { key, value, needs, .. } = write;
        let revision = match result {
            Ok(revision) => revision,
            Err(Mismatch { current, of_needed }) => {
                let needed = needs.filter(|_| of_needed).map(|(key, _)| key);
                return Err(CommitError::Mismatch { key: needed.unwrap_or(key), current });
            }
        };
        let new = value.map(|value| Arc::new(Entry::new(key.clone(), revision, &value, facets)));
        let old = self.cache.apply(revision, &key, new.clone());
        self.hooks.committed(&key, new.as_ref().map(|entry| entry.json().as_ref()));
        new.or(old).ok_or(CommitError::Mismatch { key, current: None })
    }

    fn compact(&mut self, now: Instant) -> Result<(), BackendError> {
        self.history.mark(now);
        let Some(target) = self.history.forget(now, &self.options) else { return Ok(()) };
        self.cache.forget(target);
        self.backend.compact(target).inspect_err(|error| {
            tracing::warn!(%error, revision = target, "history was not compacted");
        })
    }
}
