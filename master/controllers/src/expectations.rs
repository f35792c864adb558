//! What a controller has asked for and its cache does not show yet.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After this long a lost observation is taken for granted (upstream: ExpectationsTimeout).
const TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Expected {
    created: usize,
    deleted: HashSet<String>,
    since: Instant,
}

/// Pods that an owner created or deleted and that its cache has not shown yet. Until it has, counting the owner's pods
/// would be wrong, and a second batch would be created or deleted.
#[derive(Debug, Default)]
pub struct Expectations {
    by_owner: Mutex<HashMap<String, Expected>>,
}

impl Expectations {
    /// Whether the cache shows everything that was done for this owner.
    #[must_use]
    pub fn are_met(&self, owner: &str) -> bool {
        let mut all = self.lock();
        let open = all
            .get(owner)
            .is_some_and(|one| (one.created > 0 || !one.deleted.is_empty()) && one.since.elapsed() < TIMEOUT);
        if !open {
            all.remove(owner);
        }
        !open
    }

    /// The owner is about to create and delete these.
    pub fn expect(&self, owner: &str, created: usize, deleted: impl IntoIterator<Item = String>) {
        let expected = Expected { created, deleted: deleted.into_iter().collect(), since: Instant::now() };
        self.lock().insert(owner.to_owned(), expected);
    }

    /// A pod of the owner appeared, or creating it failed.
    pub fn created(&self, owner: &str, count: usize) {
        if let Some(expected) = self.lock().get_mut(owner) {
            expected.created = expected.created.saturating_sub(count);
        }
    }

    /// A pod of the owner is being deleted or gone, or deleting it failed.
    pub fn deleted(&self, owner: &str, uid: &str) {
        if let Some(expected) = self.lock().get_mut(owner) {
            expected.deleted.remove(uid);
        }
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &str) {
        self.lock().remove(owner);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Expected>> {
        self.by_owner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_until_everything_was_seen() {
        let expectations = Expectations::default();
        assert!(expectations.are_met("a"));
        expectations.expect("a", 2, ["x".to_owned()]);
        expectations.created("a", 1);
        expectations.deleted("a", "y");
        assert!(!expectations.are_met("a"));
        expectations.created("a", 1);
        assert!(!expectations.are_met("a"));
        expectations.deleted("a", "x");
        assert!(expectations.are_met("a"));
    }
}
