//! The pod on the disk, for an agent that is started while the API server is away.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use pod::Desired;

use super::jobs::{Done, guarded};
use super::{Origin, Worker, pod_of};
use crate::pods::checkpoint::{self, Written};

/// What was written, and whether that is still being done.
#[derive(Default)]
pub struct Checkpoint {
    written: Option<Written>,
    running: bool,
}

impl Checkpoint {
    pub fn is_running(&self) -> bool {
        self.running
    }

    pub fn done(&mut self, worked: bool) {
        self.running = false;
        if !worked {
            self.written = None;
        }
    }
}

impl Worker {
    /// Writes the pod down where its checkpoint is not current. Only a pod that has a folder has one: what has nothing
    /// on the machine needs none, and a folder that goes takes it along.
    pub(super) fn checkpoint(&mut self) {
        let is_api =
            matches!(self.inputs.origin, Origin::Api) && matches!(*self.inputs.desired.borrow(), Desired::Present(_));
        if !is_api || self.checkpoint.running || !self.memory.prepared.volumes_on_disk {
            return;
        }
        let Some(pod) = pod_of(&self.inputs.desired.borrow()) else { return };
        let now = Written::new(&pod, self.status.as_deref());
        if self.checkpoint.written.as_ref().is_some_and(|written| written.is_current(&now)) {
            return;
        }
        self.checkpoint = Checkpoint { written: Some(now), running: true };
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
