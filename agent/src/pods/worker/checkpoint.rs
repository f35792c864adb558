//! The pod on the disk, for an agent that is started while the API server is away.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use pod::{Desired, Step};
use tokio::time::Instant;

use super::jobs::{Done, guarded};
use super::{Origin, Worker, pod_of};
use crate::client::backoff::Retry;
use crate::pods::checkpoint::{self, Written};

/// Pauses after one that could not be written.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What was written, and whether that is still being done.
pub struct Checkpoint {
    written: Option<Written>,
    running: bool,
    retry: Retry,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { written: None, running: false, retry: Retry::new(RETRY.0, RETRY.1) }
    }
}

impl Checkpoint {
    pub fn is_running(&self) -> bool {
        self.running
    }

    fn begin(&mut self, written: Written) {
        (self.written, self.running) = (Some(written), true);
    }

    pub fn done(&mut self, worked: bool) {
        self.running = false;
        if worked {
            self.retry.worked();
        } else {
            self.written = None;
            self.retry.failed();
        }
    }

    /// When to try again after a failure.
    pub fn wake_at(&self) -> Option<Instant> {
        self.retry.at()
    }

    fn may_begin(&self) -> bool {
        !self.running && self.retry.may_begin()
    }
}

impl Worker {
    /// Writes the pod down where its checkpoint is not current. Only a pod that has a folder has one: what has nothing
    /// on the machine needs none, and a folder that goes takes it along.
    pub(super) fn checkpoint(&mut self) {
        let is_api =
            matches!(self.inputs.origin, Origin::Api) && matches!(*self.inputs.desired.borrow(), Desired::Present(_));
        // A folder that is being removed would come back.
        let is_going = !self.jobs.may_begin(&Step::UnmountVolumes);
        if !is_api || is_going || !self.checkpoint.may_begin() || !self.memory.prepared.volumes_on_disk {
            return;
        }
        let Some(pod) = pod_of(&self.inputs.desired.borrow()) else { return };
        let now = Written::new(&pod, self.status.as_deref());
        if self.checkpoint.written.as_ref().is_some_and(|written| written.is_current(&now)) {
            return;
        }
        self.checkpoint.begin(now);
        self.write_checkpoint(pod);
    }

    fn write_checkpoint(&mut self, pod: Arc<Pod>) {
        let (context, uid, status) = (Arc::clone(&self.context), self.uid.clone(), self.status.clone());
        self.jobs.spawn(async move {
            let write = move || checkpoint::write(&context.layout, uid.as_str(), &pod, status.as_deref());
            let written = guarded(tokio::task::spawn_blocking(write)).await;
            let worked = match written {
                Ok(Ok(Ok(()))) => true,
                Ok(Ok(Err(error))) => {
                    tracing::warn!(%error, "checkpoint of a pod not written");
                    false
                }
                // Only while the agent is being shut down.
                Ok(Err(_)) | Err(_) => false,
            };
            Done::Checkpoint { worked }
        });
    }
}
