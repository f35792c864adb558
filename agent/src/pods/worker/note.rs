//! What a worker decides goes into the journal.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use pod::Admission;
use pod::explain::Reason;

use super::{Worker, pod_of};

impl Worker {
    /// A decision was taken.
    pub(super) fn note(&self, pod: Option<&Arc<Pod>>, at: Timestamp, reason: Reason) {
        // What is left of a pod whose object was never known has its uid only.
        let meta = pod.map(|pod| &pod.metadata);
        let name = meta.and_then(|meta| meta.name.as_deref()).unwrap_or(self.uid.as_str());
        let namespace = meta.and_then(|meta| meta.namespace.as_deref()).unwrap_or_default();
        self.context.journal.decided(&self.uid, (namespace, name), at, reason);
    }

    /// The node said whether it takes the pod.
    pub(super) fn note_admission(&self, pod: &Arc<Pod>, admission: &Admission) {
        let (step, because) = match admission {
            Admission::Admitted => ("admit the pod", "it fits".to_owned()),
            Admission::Rejected { reason, message } => ("turn the pod away", format!("{reason}: {message}")),
        };
        self.note_done(Some(pod), Reason { step: step.to_owned(), because });
    }

    /// A postStart hook failed, which ends its container.
    pub(super) fn note_hook(&self, container: &str, message: &str) {
        let pod = pod_of(&self.inputs.desired.borrow());
        let step = format!("give up container {container}");
        let because = format!("its postStart hook failed: {message}");
        self.note_done(pod.as_ref(), Reason { step, because });
    }

    /// A decision was taken, and nothing is to be waited for.
    fn note_done(&self, pod: Option<&Arc<Pod>>, reason: Reason) {
        let at = Timestamp::now();
        self.note(pod, at, reason);
        self.context.journal.came_to(&self.uid, at, None);
    }
}
