//! client-go's `EventCorrelator`, pure: a spam filter for each object, aggregation of similar events, and counting of
//! equal ones (tools/record/events_cache.go; the numbers below are its defaults).

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

use super::Kind;

/// Keys remembered in each of the three caches.
const CACHE: usize = 4096;
/// Events an object may have at once, and the time in which it earns another one.
const SPAM_BURST: f64 = 25.0;
const SPAM_REFILL_SECONDS: f64 = 300.0;
/// More than this many different messages within the interval become one combined event.
const SIMILAR: usize = 10;
const SIMILAR_SECONDS: i64 = 600;

/// What somebody recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// What it is about.
    pub object: ObjectReference,
    /// Normal or Warning.
    pub kind: Kind,
    /// A CamelCase word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// `metadata.annotations` of the Event, for machines.
    pub annotations: BTreeMap<String, String>,
}

/// What is to be sent of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What was recorded.
    pub observation: Observation,
    /// Name of the Event object.
    pub name: String,
    /// Its message: the recorded one, or the combined one.
    pub message: String,
    /// How often it was seen; above one the object exists and is patched.
    pub count: i32,
    /// When it was seen first.
    pub first: Timestamp,
    key: Key,
}

impl Outcome {
    /// Whether an Event object exists already and only counts up.
    #[must_use]
    pub fn is_repeat(&self) -> bool {
        self.count > 1
    }

    /// Cluster-scoped objects have their events in `default`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.observation.object.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default")
    }

    /// The same as a new object.
    pub(super) fn into_first(self, now: Timestamp) -> Self {
        Self { name: event_name(&self.observation.object, now), count: 1, first: now, ..self }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ObjectKey {
    kind: String,
    namespace: String,
    name: String,
    uid: String,
}

/// Events that differ only in their message share this.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct GroupKey {
    object: ObjectKey,
    field: String,
    kind: Kind,
    reason: String,
}

/// Events that are equal share this.
type Key = (GroupKey, String);

struct Spam {
    tokens: f64,
    at: Timestamp,
}

struct Group {
    messages: HashSet<String>,
    last: Timestamp,
}

struct Seen {
    name: String,
    count: i32,
    first: Timestamp,
}

/// The three caches. Each is cleared of its older half when it is full; what is forgotten is merely counted anew.
#[derive(Default)]
pub struct Correlator {
    spam: Cache<ObjectKey, Spam>,
    groups: Cache<GroupKey, Group>,
    seen: Cache<Key, Seen>,
}

impl Correlator {
    /// What to send, if anything.
    pub fn observe(&mut self, observation: Observation, now: Timestamp) -> Option<Outcome> {
        let group = group_key(&observation);
        let (message, key) = self.aggregate(group, &observation.message, now);
        // As upstream, the filter comes last: a dropped event still counts.
        let (name, count, first) = self.count(&key, &observation.object, now);
        if !self.may_pass(&key.0.object, now) {
            return None;
        }
        Some(Outcome { observation, name, message, count, first, key })
    }

    /// An event could not be sent: the next one like it is a new object.
    pub fn forget(&mut self, outcome: &Outcome) {
        self.seen.remove(&outcome.key);
    }

    fn aggregate(&mut self, key: GroupKey, message: &str, now: Timestamp) -> (String, Key) {
        let group = self.groups.entry(key.clone(), || Group { messages: HashSet::new(), last: now });
        if now.as_second().saturating_sub(group.last.as_second()) > SIMILAR_SECONDS {
            group.messages.clear();
        }
        group.last = now;
        if group.messages.len() < SIMILAR || group.messages.contains(message) {
            group.messages.insert(message.to_owned());
        } else {
            // All that follow share one key, and so one object whose message is the latest.
            return (format!("(combined from similar events): {message}"), (key, String::new()));
        }
        (message.to_owned(), (key, message.to_owned()))
    }

    fn count(&mut self, key: &Key, object: &ObjectReference, now: Timestamp) -> (String, i32, Timestamp) {
        let seen = self.seen.entry(key.clone(), || Seen { name: event_name(object, now), count: 0, first: now });
        seen.count = seen.count.saturating_add(1);
        (seen.name.clone(), seen.count, seen.first)
    }

    fn may_pass(&mut self, object: &ObjectKey, now: Timestamp) -> bool {
        let spam = self.spam.entry(object.clone(), || Spam { tokens: SPAM_BURST, at: now });
        let elapsed = now.duration_since(spam.at).as_secs_f64().max(0.0);
        spam.tokens = (spam.tokens + elapsed / SPAM_REFILL_SECONDS).min(SPAM_BURST);
        spam.at = now;
        if spam.tokens < 1.0 {
            return false;
        }
        spam.tokens -= 1.0;
        true
    }
}

fn group_key(observation: &Observation) -> GroupKey {
    let object = &observation.object;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    GroupKey {
        object: ObjectKey {
            kind: text(&object.kind),
            namespace: text(&object.namespace),
            name: text(&object.name),
            uid: text(&object.uid),
        },
        field: text(&object.field_path),
        kind: observation.kind,
        reason: observation.reason.clone(),
    }
}

/// client-go: the object's name and the time in nanoseconds, in hex.
fn event_name(object: &ObjectReference, now: Timestamp) -> String {
    let name = object.name.as_deref().unwrap_or("unknown");
    format!("{name}.{:x}", now.as_nanosecond())
}

/// A map that never holds more than [`CACHE`] entries: two generations, of which the older is dropped whole.
struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: std::hash::Hash + Eq, V> Cache<K, V> {
    fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if self.young.len() >= CACHE / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        let value = self.old.remove(&key);
        self.young.entry(key).or_insert_with(|| value.unwrap_or_else(make))
    }

    fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }
}
