//! Answers of the API server, kept for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// Entries kept at most: more would be somebody trying.
const MAX: usize = 1024;

/// A map whose entries expire.
pub(super) struct Expiring<K, V> {
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K, V> Default for Expiring<K, V> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}

impl<K: Hash + Eq, V: Clone> Expiring<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<V> {
        let entries = self.entries.lock().ok()?;
        entries.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, value)| value.clone())
    }

    pub(super) fn put(&self, key: K, value: V, ttl: Duration) {
        let Ok(mut entries) = self.entries.lock() else { return };
        let now = Instant::now();
        if entries.len() >= MAX {
            entries.retain(|_, (until, _)| *until > now);
        }
        if entries.len() >= MAX {
            entries.clear();
        }
        entries.insert(key, (now + ttl, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn entries_expire_and_are_bounded() {
        let cache = Expiring::default();
        cache.put("a", 1, Duration::from_secs(30));
        assert_eq!(cache.get(&"a"), Some(1));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(cache.get(&"a"), None);
        let cache = Expiring::default();
        for n in 0..5000 {
            cache.put(n, n, Duration::from_secs(30));
        }
        assert!(cache.entries.lock().unwrap().len() <= MAX);
        assert_eq!(cache.get(&4999), Some(4999));
    }
}
