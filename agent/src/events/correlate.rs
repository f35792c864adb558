//! client-go's `EventCorrelator`, pure: a spam filter for each object, aggregation of similar events, and counting of
//! equal ones (tools/record/events_cache.go; the numbers below are its defaults).

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};

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
    /// How often it was seen.
    pub count: i32,
    /// When it was seen first.
    pub first: Timestamp,
    /// The object exists, as far as is known, and is patched.
    exists: bool,
    key: Key,
}

impl Outcome {
    /// Whether an Event object exists already and only counts up.
    #[must_use]
    pub fn is_repeat(&self) -> bool {
        self.exists
    }

    /// Cluster-scoped objects have their events in `default`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.observation.object.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default")
    }

    /// The same as a new object. Name, count and first time stay: the next one like it looks for it under this name.
    pub(super) fn anew(self) -> Self {
        Self { exists: false, ..self }
    }
}

/// What stands for an object, for events that differ in their message only, and for events that are equal. Their texts are not kept: they
/// would be some kilobytes of each pod, for long after its end, and two that come to the same number are only counted together.
type Key = u64;

struct Spam {
    tokens: f64,
    at: Timestamp,
}

struct Group {
    /// Keys of events of different messages.
    different: Vec<Key>,
    last: Timestamp,
}

struct Seen {
    count: i32,
    first: Timestamp,
}

/// The three caches. Each is cleared of its older half when it is full; what is forgotten is merely counted anew.
#[derive(Default)]
pub struct Correlator {
    hasher: RandomState,
    spam: Cache<Spam>,
    groups: Cache<Group>,
    seen: Cache<Seen>,
}

impl Correlator {
    /// What to send, if anything.
    pub fn observe(&mut self, observation: Observation, now: Timestamp) -> Option<Outcome> {
        let about = &observation.object;
        let object = self.hasher.hash_one((&about.kind, &about.namespace, &about.name, &about.uid));
        let group = self.hasher.hash_one((object, &about.field_path, observation.kind, &observation.reason));
        let (message, key) = self.aggregate(group, &observation.message, now);
        // As upstream, the filter comes last: a dropped event still counts.
        let (count, first) = self.count(key, now);
        if !self.may_pass(object, now) {
            return None;
        }
        let name = self.name(&observation.object, key, first);
        Some(Outcome { observation, name, message, count, first, exists: count > 1, key })
    }

    /// An event could not be sent: the next one like it is a new object.
    pub fn forget(&mut self, outcome: &Outcome) {
        self.seen.remove(outcome.key);
    }

    fn aggregate(&mut self, group: Key, message: &str, now: Timestamp) -> (String, Key) {
        let key = self.hasher.hash_one((group, message));
        let known = self.groups.entry(group, || Group { different: Vec::new(), last: now });
        if now.as_second().saturating_sub(known.last.as_second()) > SIMILAR_SECONDS {
            known.different.clear();
        }
        known.last = now;
        if known.different.contains(&key) {
            return (message.to_owned(), key);
        }
        if known.different.len() >= SIMILAR {
            // All that follow share one key, and so one object whose message is the latest.
            return (format!("(combined from similar events): {message}"), group);
        }
        known.different.push(key);
        (message.to_owned(), key)
    }

    fn count(&mut self, key: Key, now: Timestamp) -> (i32, Timestamp) {
        let seen = self.seen.entry(key, || Seen { count: 0, first: now });
        seen.count = seen.count.saturating_add(1);
        (seen.count, seen.first)
    }

    /// client-go's `GenerateEventName`: the object's name and the time in nanoseconds, in hex, or a UUID where that can be no name. It is the same
    /// whenever it is asked for, as events that repeat are found by it.
    fn name(&self, object: &ObjectReference, key: Key, first: Timestamp) -> String {
        let name = format!("{}.{:x}", object.name.as_deref().unwrap_or("unknown"), first.as_nanosecond());
        if api::names::subdomain_errors(&name).is_empty() {
            return name;
        }
        let halves = [0, 1].map(|half| self.hasher.hash_one((key, first, half)));
        let bits = halves.into_iter().fold(0, |all: u128, half| all << 64 | u128::from(half));
        // Version 4, variant 1.
        let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
        let text = format!("{bits:032x}");
        let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| text.get(part).unwrap_or_default());
        parts.join("-")
    }

    fn may_pass(&mut self, object: Key, now: Timestamp) -> bool {
        let spam = self.spam.entry(object, || Spam { tokens: SPAM_BURST, at: now });
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

/// A map that never holds more than [`CACHE`] entries: two generations, of which the older is dropped whole.
struct Cache<V> {
    young: HashMap<Key, V>,
    old: HashMap<Key, V>,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<V> Cache<V> {
    fn entry(&mut self, key: Key, make: impl FnOnce() -> V) -> &mut V {
        if self.young.len() >= CACHE / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        let value = self.old.remove(&key);
        self.young.entry(key).or_insert_with(|| value.unwrap_or_else(make))
    }

    fn remove(&mut self, key: Key) {
        self.young.remove(&key);
        self.old.remove(&key);
    }
}
