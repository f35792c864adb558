//! A queue of keys: each key is in it at most once, is handled by one worker at a time, and waits longer after each failure.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

const FIRST_BACK_OFF: Duration = Duration::from_millis(5);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(300);

#[derive(Default)]
struct State {
    ready: VecDeque<String>,
    /// Keys that are to be handled: in `ready`, or to be put there when their worker is done.
    dirty: HashSet<String>,
    busy: HashSet<String>,
    delayed: BinaryHeap<Reverse<(Instant, String)>>,
    /// When each delayed key is due; entries of `delayed` that say otherwise are stale.
    due: HashMap<String, Instant>,
    failures: HashMap<String, u32>,
}

/// The queue between an informer's handlers and a controller's workers.
///
/// It holds a key at most once, so that it is bounded by the number of objects; adding never blocks.
#[derive(Default)]
pub struct WorkQueue {
    state: Mutex<State>,
    wake: Notify,
}

impl WorkQueue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Asks for the key to be handled soon.
    pub fn add(&self, key: impl Into<String>) {
        let key = key.into();
        let mut state = self.lock();
        if state.dirty.contains(&key) {
            return;
        }
        if !state.busy.contains(&key) {
            state.ready.push_back(key.clone());
        }
        state.dirty.insert(key);
        drop(state);
        self.wake.notify_one();
    }

    /// Asks for the key to be handled after `pause`. The earliest of several such wishes counts.
    pub fn add_after(&self, key: impl Into<String>, pause: Duration) {
        if pause.is_zero() {
            return self.add(key);
        }
        let (key, at) = (key.into(), Instant::now() + pause);
        let mut state = self.lock();
        if state.due.get(&key).is_some_and(|due| *due <= at) {
            return;
        }
        state.due.insert(key.clone(), at);
        state.delayed.push(Reverse((at, key)));
        drop(state);
        self.wake.notify_one();
    }

    /// Asks for the key to be handled again after a failure: 5 ms, doubled each time, at most five minutes.
    pub fn add_failed(&self, key: impl Into<String>) {
        let key = key.into();
        let failures = {
            let mut state = self.lock();
            let count = state.failures.entry(key.clone()).or_default();
            *count += 1;
            *count
        };
        let pause = FIRST_BACK_OFF.saturating_mul(1 << (failures - 1).min(16));
        self.add_after(key, pause.min(LONGEST_BACK_OFF));
    }

    /// Forgets earlier failures of the key.
    pub fn forget(&self, key: &str) {
        self.lock().failures.remove(key);
    }

    /// Waits for the next key. [`WorkQueue::done`] must follow. Cancel-safe: a key is taken only by the poll that returns it.
    pub async fn next(&self) -> String {
        loop {
            let due = {
                let mut state = self.lock();
                state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.busy.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                state.delayed.peek().map(|Reverse((at, _))| *at)
            };
            let woken = self.wake.notified();
            match due {
                // Both arms only wait; nothing is lost when the other one wins.
                Some(at) => tokio::select! { () = woken => (), () = tokio::time::sleep_until(at) => () },
                None => woken.await,
            }
        }
    }

    /// Says that a key from [`WorkQueue::next`] was handled. When it was asked for meanwhile, it is ready again.
    pub fn done(&self, key: &str) {
        let mut state = self.lock();
        state.busy.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.to_owned());
            drop(state);
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn promote(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.delayed.peek() {
            if *at > now {
                break;
            }
            let Some(Reverse((at, key))) = self.delayed.pop() else { break };
            if self.due.get(&key) != Some(&at) {
                continue;
            }
            self.due.remove(&key);
            if self.dirty.insert(key.clone()) && !self.busy.contains(&key) {
                self.ready.push_back(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_handled_by_one_worker_at_a_time() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.next()).await.is_err());
        queue.done("a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_delay_counts_and_failures_wait_longer() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(60));
        queue.add_after("a", Duration::from_secs(10));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 10);
        queue.done("a");
        assert!(tokio::time::timeout(Duration::from_secs(100), queue.next()).await.is_err());

        let mut pauses = Vec::new();
        for _ in 0..3 {
            let start = Instant::now();
            queue.add_failed("b");
            queue.done(&queue.next().await);
            pauses.push(start.elapsed().as_millis());
        }
        assert_eq!(pauses, [5, 10, 20]);
    }

    #[tokio::test(start_paused = true)]
    async fn two_workers_share_a_burst() {
        let queue = WorkQueue::new();
        for key in ["a", "b", "c"] {
            queue.add(key);
        }
        let (first, second) = tokio::join!(queue.next(), queue.next());
        assert_eq!((first.as_str(), second.as_str()), ("a", "b"));
    }
}
