//! What the pod was given of the resources that it asks for: [`pod::World::allocation`].

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use pod::{Admission, Allocation, Deferral, Stage};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Worker, counted};
use crate::metrics::families::DEFERRED_ACCEPTED_RESIZES;
use crate::pods::admission;
use crate::pods::admission::resize::Refused;
use crate::pods::record::Record;
use crate::pods::registry::Freed;

/// A resize that was put off is tried again then, whatever happens.
const AGAIN: Duration = Duration::from_secs(180);

/// A pod as it is asked for, and with the resources that it was given.
pub struct Given {
    asked: Arc<Pod>,
    allocation: Option<Allocation>,
    given: Arc<Pod>,
}

/// What a resize that was put off waits for.
pub struct Waiting {
    /// Changes when other pods give back resources.
    freed: watch::Receiver<Freed>,
    again: Instant,
}

/// Why a resize that was put off is asked for again, as upstream's metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    Freed(Freed),
    /// It waited long enough.
    Time,
    /// Something else is asked for now.
    Update,
}

impl Trigger {
    fn name(self) -> &'static str {
        match self {
            Self::Freed(Freed::Resized) => "pod_resized",
            Self::Freed(Freed::Ended) => "pod_terminated",
            Self::Freed(Freed::Removed) => "pods_removed",
            Self::Time => "periodic_retry",
            Self::Update => "pod_updated",
        }
    }
}

impl Waiting {
    pub fn until(&self) -> Instant {
        self.again
    }
}

/// Resolves when resources were given back; never where nothing waits for that. Cancel-safe.
pub async fn freed(waiting: &mut Option<Waiting>) -> Trigger {
    match waiting {
        Some(waiting) => match waiting.freed.changed().await {
            Ok(()) => Trigger::Freed(*waiting.freed.borrow()),
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

impl Worker {
    /// A pod that was just admitted, or was found running, has been given what it asks for, or what was found of it.
    pub(super) fn adopt_allocation(&mut self, pod: Option<&Arc<Pod>>) {
        let Some(pod) = pod.filter(|_| self.memory.allocation.is_none()) else { return };
        let known = !self.seen.sandboxes.is_empty() || !self.seen.containers.is_empty();
        if known || self.memory.admission == Some(Admission::Admitted) {
            let found = Allocation::found(pod, &self.seen.containers);
            self.memory.actuated.cgroup.get_or_insert_with(|| found.clone());
            self.memory.allocation = Some(found);
        }
    }

    /// Takes up what an earlier agent wrote down.
    pub(super) fn recall_allocation(&mut self, record: Option<Record>) {
        if let Some(record) = record {
            self.memory.allocation = Some(record.given);
            self.memory.actuated = record.actuated;
        }
    }

    /// Counts what is asked for that was not asked for in the pass before.
    pub(super) fn count_requests(&self, asked: Option<&Arc<Pod>>) {
        let known = self.given.as_ref().map(|known| &known.asked);
        if let (Some(known), Some(asked)) = (known, asked)
            && known.metadata.generation != asked.metadata.generation
        {
            counted::requested(known, asked);
        }
    }

    /// The pod with the resources that it was given.
    pub(super) fn given(&mut self, asked: Option<&Arc<Pod>>) -> Option<Arc<Pod>> {
        let asked = asked?;
        let known = self.given.as_ref();
        if let Some(known) = known.filter(|k| Arc::ptr_eq(&k.asked, asked) && k.allocation == self.memory.allocation) {
            return Some(Arc::clone(&known.given));
        }
        let spec = asked.spec.as_ref().and_then(|spec| self.memory.allocation.as_ref()?.apply(spec));
        let given = match spec {
            Some(spec) => Arc::new(Pod { spec: Some(spec), ..Pod::clone(asked) }),
            None => Arc::clone(asked),
        };
        let allocation = self.memory.allocation.clone();
        self.given = Some(Given { asked: Arc::clone(asked), allocation, given: Arc::clone(&given) });
        Some(given)
    }

    /// Asks for what the spec asks for by now.
    pub(super) fn allocate(&mut self, asked: Option<&Arc<Pod>>) {
        let Some(asked) = asked else { return };
        let generation = asked.metadata.generation;
        // Listening begins before the question, so that nothing is missed.
        let freed = self.context.registry.freed();
        let trigger = self.deferred.take();
        match admission::resize::ask(&self.uid, asked, &self.context) {
            Ok(()) => {
                self.memory.allocation = Some(Allocation::of(asked));
                self.memory.unrecorded = true;
                // What is asked for anew without a reason of ours was put off before, and then changed.
                if let Some(trigger) = trigger.or_else(|| self.memory.deferral.as_ref().map(|_| Trigger::Update)) {
                    DEFERRED_ACCEPTED_RESIZES.count([trigger.name().into()]);
                }
                self.memory.deferral = None;
                self.memory.failures.remove(&Stage::Resize);
                self.waiting = None;
            }
            Err(Refused { infeasible, message }) => {
                self.memory.deferral = Some(Deferral { generation, infeasible, message });
                self.waiting = (!infeasible).then(|| Waiting { freed, again: Instant::now() + AGAIN });
            }
        }
    }

    /// A resize that was put off is asked for again.
    pub(super) fn ask_again(&mut self, trigger: Trigger) {
        self.waiting = None;
        self.deferred = Some(trigger);
        self.memory.deferral = None;
    }

    /// What is written down of the pod.
    pub(super) fn record(&self) -> Option<Record> {
        let given = self.memory.allocation.clone()?;
        Some(Record { given, actuated: self.memory.actuated.clone() })
    }
}
