//! Following the changes of one resource.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{Entry, Key};

/// What a watch or list wants to see.
pub type Filter = Arc<dyn Fn(&Entry) -> bool + Send + Sync>;

/// What happened to an object, as far as one filter sees it: an object that begins to match is added, one that no longer
/// does is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    /// `type` of a watch event.
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Added => "ADDED",
            Change::Modified => "MODIFIED",
            Change::Deleted => "DELETED",
        }
    }
}

/// What a change takes beside the objects, with key and labels: about.
const CHANGE_BYTES: usize = 512;

/// One committed change; all watchers share it.
#[derive(Debug)]
pub struct Event {
    revision: u64,
    pub(crate) old: Option<Arc<Entry>>,
    pub(crate) new: Option<Arc<Entry>>,
    frames: Mutex<Frames>,
}

/// What was made of a change for its watchers. Each is as large as the object.
#[derive(Debug, Default)]
struct Frames {
    json: Option<Bytes>,
    transcoded: Option<Bytes>,
    /// The change is of the past: whoever still comes to read it comes alone.
    past: bool,
}

impl Event {
    pub(crate) fn new(revision: u64, old: Option<Arc<Entry>>, new: Option<Arc<Entry>>) -> Self {
        Event { revision, old, new, frames: Mutex::default() }
    }

    /// The size of the version that only history keeps: the one that it replaced or deleted.
    pub(crate) fn superseded_bytes(&self) -> usize {
        CHANGE_BYTES + self.old.as_ref().map_or(0, |entry| entry.json().len())
    }

    /// How large what is made of the change for watchers may be.
    pub(crate) fn shown_bytes(&self) -> usize {
        self.new.as_ref().or(self.old.as_ref()).map_or(0, |entry| entry.json().len())
    }

    /// Nothing made of the change is kept any longer.
    pub(crate) fn pass(&self) {
        *self.frames() = Frames { past: true, ..Frames::default() };
    }

    fn frames(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn key(&self) -> Option<&Key> {
        self.new.as_ref().or(self.old.as_ref()).map(|entry| &entry.key)
    }

    /// What happened when nothing is filtered.
    fn natural(&self) -> Change {
        match (&self.old, &self.new) {
            (None, _) => Change::Added,
            (Some(_), Some(_)) => Change::Modified,
            (Some(_), None) => Change::Deleted,
        }
    }

    fn seen_by(&self, filter: Option<&Filter>) -> Option<Change> {
        let Some(filter) = filter else { return Some(self.natural()) };
        let matches = |entry: &Option<Arc<Entry>>| entry.as_ref().is_some_and(|entry| filter(entry));
        match (matches(&self.old), matches(&self.new)) {
            (false, true) => Some(Change::Added),
            (true, true) => Some(Change::Modified),
            (true, false) => Some(Change::Deleted),
            (false, false) => None,
        }
    }
}

/// One change for one watcher.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub change: Change,
    pub event: Arc<Event>,
}

impl Delivery {
    fn initial(entry: Arc<Entry>) -> Self {
        let event = Event::new(entry.revision, None, Some(entry));
        Delivery { change: Change::Added, event: Arc::new(event) }
    }

    /// The object to show: for a deletion its last state that the watcher saw, at the revision of the change.
    pub fn json(&self) -> Bytes {
        let event = &self.event;
        match (self.change, &event.old, &event.new) {
            (Change::Deleted, Some(old), _) => old.json_at(event.revision),
            (_, _, Some(new)) => new.json().clone(),
            _ => Bytes::new(),
        }
    }

    /// The entry that the change is about.
    pub fn entry(&self) -> Option<&Arc<Entry>> {
        match self.change {
            Change::Deleted => self.event.old.as_ref(),
            Change::Added | Change::Modified => self.event.new.as_ref(),
        }
    }

    /// The line of a JSON watch; made once for all watchers that see the change in the same way.
    pub fn frame(&self) -> Bytes {
        self.once(|frames| &mut frames.json, || Some(self.compose())).unwrap_or_default()
    }

    /// The frame of a watch in another encoding, which `make` makes of [`Delivery::json`]; made once for all watchers that
    /// see the change in the same way, as long as all give the same `make`. `None` when it could not be made.
    pub fn transcoded(&self, make: impl Fn(&[u8]) -> Option<Bytes>) -> Option<Bytes> {
        self.once(|frames| &mut frames.transcoded, || make(&self.json()))
    }

    fn once(&self, slot: fn(&mut Frames) -> &mut Option<Bytes>, make: impl FnOnce() -> Option<Bytes>) -> Option<Bytes> {
        if self.change != self.event.natural() {
            return make();
        }
        let mut frames = self.event.frames();
        if let Some(made) = slot(&mut frames) {
            return Some(made.clone());
        }
        let made = make()?;
        if !frames.past {
            *slot(&mut frames) = Some(made.clone());
        }
        Some(made)
    }

    fn compose(&self) -> Bytes {
        let json = self.json();
        let mut line = Vec::with_capacity(json.len() + 40);
        line.extend_from_slice(b"{\"type\":\"");
        line.extend_from_slice(self.change.as_str().as_bytes());
        line.extend_from_slice(b"\",\"object\":");
        line.extend_from_slice(&json);
        line.extend_from_slice(b"}\n");
        line.into()
    }
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Changes from now on.
    Now,
    /// What exists, as added, then changes.
    State,
    /// Changes after a revision.
    After(u64),
}

/// What to watch.
pub struct WatchRequest {
    pub resource: String,
    /// Empty for all namespaces.
    pub namespace: String,
    pub start: Start,
    pub filter: Option<Filter>,
    /// How many changes may wait before the watcher counts as too slow and is dropped.
    pub buffer: usize,
}

/// The history that a watch asks for is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct TooOld {
    pub asked: u64,
    pub oldest: u64,
}

/// The watch was dropped because its reader was too slow: the client must watch again from what it saw last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the watch fell behind")]
pub struct Lagged;

/// The cache's end of a watch.
pub(crate) struct Watcher {
    prefix: String,
    filter: Option<Filter>,
    after: u64,
    sender: mpsc::Sender<Delivery>,
}

impl Watcher {
    /// False when the watch is over: its reader is gone or too slow.
    pub(crate) fn offer(&self, event: &Arc<Event>) -> bool {
        if event.revision <= self.after || !event.key().is_some_and(|key| key.as_str().starts_with(&self.prefix)) {
            return true;
        }
        match event.seen_by(self.filter.as_ref()) {
            Some(change) => self.sender.try_send(Delivery { change, event: Arc::clone(event) }).is_ok(),
            None => !self.is_gone(),
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }
}

/// A reader's end of a watch.
pub struct Watch {
    backlog: VecDeque<Delivery>,
    receiver: mpsc::Receiver<Delivery>,
    initial: usize,
    revision: u64,
}

impl Watch {
    pub(crate) fn new(
        request: WatchRequest,
        prefix: String,
        (initial, missed): (Vec<Arc<Entry>>, Vec<Arc<Event>>),
        (from, current): (u64, u64),
    ) -> (Watcher, Watch) {
        let (sender, receiver) = mpsc::channel(request.buffer.max(1));
        let filter = request.filter;
        let wanted = |entry: &Arc<Entry>| filter.as_ref().is_none_or(|filter| filter(entry));
        let mut backlog: VecDeque<Delivery> = initial.into_iter().filter(wanted).map(Delivery::initial).collect();
        let initial = backlog.len();
        let here = |event: &Arc<Event>| event.key().is_some_and(|key| key.as_str().starts_with(&prefix));
        backlog.extend(missed.into_iter().filter(here).filter_map(|event| {
            let change = event.seen_by(filter.as_ref())?;
            Some(Delivery { change, event })
        }));
        let watch = Watch { backlog, receiver, initial, revision: current };
        (Watcher { prefix, filter, after: from, sender }, watch)
    }

    /// How many of the first deliveries are the initial state ([`Start::State`]).
    pub fn initial(&self) -> usize {
        self.initial
    }

    /// The revision at which the watch was opened: that of its initial state.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The next change. Cancel-safe.
    pub async fn next(&mut self) -> Result<Delivery, Lagged> {
        match self.backlog.pop_front() {
            Some(delivery) => Ok(delivery),
            None => self.receiver.recv().await.ok_or(Lagged),
        }
    }

    /// The next change if it is there already.
    pub fn ready(&mut self) -> Option<Delivery> {
        self.backlog.pop_front().or_else(|| self.receiver.try_recv().ok())
    }

    /// Whether nothing waits to be read. When the store's revision was read before, all changes up to it were delivered.
    pub fn is_drained(&self) -> bool {
        self.backlog.is_empty() && self.receiver.is_empty()
    }
}
