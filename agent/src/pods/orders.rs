//! Orders of the node itself to end pods: eviction, preemption, shutdown. Whoever gives one waits for the pod's end by
//! looking at the registry.

use std::collections::{HashMap, HashSet};

use api::PodUid;
use pod::Eviction;
use tokio::sync::watch;

/// What the workers listen to.
pub type Receiver = watch::Receiver<HashMap<PodUid, Eviction>>;

/// The orders that were given. The first for a pod counts, but the least time: nobody waits for what the node has no time for any more
/// (`calculateEffectiveGracePeriod`).
#[derive(Debug)]
pub struct Orders(watch::Sender<HashMap<PodUid, Eviction>>);

impl Default for Orders {
    fn default() -> Self {
        Self(watch::channel(HashMap::new()).0)
    }
}

impl Orders {
    /// Orders a pod to end. Whether nobody had done so before.
    pub fn give(&self, uid: &PodUid, eviction: Eviction) -> bool {
        let mut is_first = false;
        self.0.send_if_modified(|orders| {
            let Some(known) = orders.get_mut(uid) else {
                orders.insert(uid.clone(), eviction);
                is_first = true;
                return true;
            };
            // No order gives more than the pod's own time.
            let least = known.grace.into_iter().chain(eviction.grace).min();
            let is_shorter = least != known.grace;
            known.grace = least;
            is_shorter
        });
        is_first
    }

    /// There is no such pod any more.
    pub fn forget(&self, uid: &PodUid) {
        self.0.send_if_modified(|orders| {
            orders.remove(uid);
            // Nobody is to act on it.
            false
        });
    }

    /// Whether a pod is ordered to end.
    #[must_use]
    pub fn ends(&self, uid: &PodUid) -> bool {
        self.0.borrow().contains_key(uid)
    }

    /// All that are ordered to end.
    #[must_use]
    pub fn leaving(&self) -> HashSet<PodUid> {
        self.0.borrow().keys().cloned().collect()
    }

    /// For a worker.
    #[must_use]
    pub fn listen(&self) -> Receiver {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts_and_the_least_time() {
        let orders = Orders::default();
        let uid = PodUid::new("uid");
        let mut heard = orders.listen();
        let mut told = |reason: &str, grace: Option<i64>| {
            let eviction = Eviction {
                reason: reason.to_owned(),
                message: String::new(),
                disruption: None,
                grace,
                annotations: Default::default(),
                event: true,
                clears: true,
            };
            let is_first = orders.give(&uid, eviction);
            let is_news = heard.has_changed().unwrap();
            let known = heard.borrow_and_update()[&uid].clone();
            (is_first, is_news, known.reason, known.grace)
        };
        let first = "Preempting".to_owned();
        assert_eq!(told("Preempting", None), (true, true, first.clone(), None));
        assert_eq!(told("Terminated", Some(20)), (false, true, first.clone(), Some(20)));
        assert_eq!(told("Terminated", Some(30)), (false, false, first.clone(), Some(20)));
        assert_eq!(told("Preempting", None), (false, false, first.clone(), Some(20)));
        assert_eq!(told("Evicted", Some(1)), (false, true, first, Some(1)));
    }
}
