//! Orders of the node itself to end pods: eviction, preemption, shutdown. Whoever gives one waits for the pod's end by
//! looking at the registry.

use std::collections::HashMap;

use api::PodUid;
use pod::Eviction;
use tokio::sync::watch;

/// What the workers listen to.
pub type Receiver = watch::Receiver<HashMap<PodUid, Eviction>>;

/// The orders that were given. The first for a pod counts.
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
        self.0.send_if_modified(|orders| {
            let new = !orders.contains_key(uid);
            orders.entry(uid.clone()).or_insert(eviction);
            new
        })
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

    /// For a worker.
    #[must_use]
    pub fn listen(&self) -> Receiver {
        self.0.subscribe()
    }
}
