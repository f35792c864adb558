//! When nodes were last heard of, by our clock: clocks of nodes are not trusted.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Default)]
pub(super) struct Heard {
    last: Mutex<HashMap<String, Instant>>,
}

impl Heard {
    pub(super) fn now(&self, node: &str) {
        self.lock().insert(node.to_owned(), Instant::now());
    }

    /// Gives every node the whole time anew.
    pub(super) fn all_now(&self) {
        let now = Instant::now();
        self.lock().values_mut().for_each(|last| *last = now);
    }

    pub(super) fn forget(&self, node: &str) {
        self.lock().remove(node);
    }

    /// How long the node has been silent; a node that was never heard of is heard of now.
    pub(super) fn silence(&self, node: &str) -> Duration {
        self.lock().entry(node.to_owned()).or_insert_with(Instant::now).elapsed()
    }

    /// How long none of all nodes was heard of.
    pub(super) fn silence_of_all(&self) -> Duration {
        self.lock().values().max().map_or(Duration::ZERO, Instant::elapsed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_for_each_and_for_all() {
        let heard = Heard::default();
        assert_eq!(heard.silence_of_all(), Duration::ZERO);
        heard.now("a");
        tokio::time::advance(Duration::from_secs(5)).await;
        heard.now("b");
        tokio::time::advance(Duration::from_secs(5)).await;
        let seconds = |node: &str| heard.silence(node).as_secs();
        assert_eq!((seconds("a"), seconds("b"), seconds("new")), (10, 5, 0));
        heard.forget("new");
        assert_eq!(heard.silence_of_all().as_secs(), 5);
        heard.all_now();
        assert_eq!((seconds("a"), seconds("b")), (0, 0));
    }
}
