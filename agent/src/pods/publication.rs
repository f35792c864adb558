//! The status of one pod on its way to the API server: one write at a time, always the latest, again until it is there.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::time::Instant;

use super::source::trim;
use super::status::Written;
use crate::client::backoff::Retry;
use crate::client::watch::describe;
use crate::metrics::families::STATUS_SYNC;

const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// What is known of the server's copy.
#[derive(Debug)]
pub struct Publication {
    /// The object as the server has it.
    base: Option<Arc<Pod>>,
    accepted: Option<Arc<PodStatus>>,
    /// The object that is being written to.
    writing: Option<Arc<Pod>>,
    /// Since when there is something to tell.
    since: Option<Instant>,
    retry: Retry,
}

/// What to send now.
pub struct Write {
    pub base: Arc<Pod>,
    pub status: Arc<PodStatus>,
}

impl Default for Publication {
    fn default() -> Self {
        Self { base: None, accepted: None, writing: None, since: None, retry: Retry::new(RETRY.0, RETRY.1) }
    }
}

impl Publication {
    /// The watch has brought an object.
    pub fn seen(&mut self, pod: &Arc<Pod>) {
        let newer = self.base.as_ref().is_none_or(|base| version(pod) >= version(base));
        if newer && !self.base.as_ref().is_some_and(|base| Arc::ptr_eq(base, pod)) {
            let is_other = self.base.as_ref().is_some_and(|base| base.metadata.uid != pod.metadata.uid);
            let is_news = self.base.as_ref().is_some_and(|base| version(pod) > version(base));
            // As a kubelet reconciles: the controller of nodes takes a silent node's pods for not ready.
            if is_other || is_news && self.accepted.as_ref().is_some_and(|accepted| is_overwritten(accepted, pod)) {
                self.accepted = None;
            }
            self.base = Some(Arc::clone(pod));
        }
    }

    /// There is no object any more: nothing can be sent.
    pub fn lost(&mut self) {
        self.base = None;
        self.accepted = None;
        self.since = None;
    }

    /// Whether the server has accepted this very status.
    #[must_use]
    pub fn has(&self, status: Option<&Arc<PodStatus>>) -> bool {
        match (&self.accepted, status) {
            (Some(accepted), Some(status)) => Arc::ptr_eq(accepted, status) || accepted == status,
            _ => false,
        }
    }

    /// What to send of the latest status, if anything, now.
    pub fn next(&mut self, status: &Arc<PodStatus>) -> Option<Write> {
        if self.has(Some(status)) {
            self.since = None;
            return None;
        }
        self.since.get_or_insert_with(Instant::now);
        if self.writing.is_some() || !self.retry.may_begin() {
            return None;
        }
        let base = Arc::clone(self.base.as_ref()?);
        self.writing = Some(Arc::clone(&base));
        Some(Write { base, status: Arc::clone(status) })
    }

    /// What became of it.
    pub fn written(&mut self, status: Arc<PodStatus>, result: Result<Written, kube::Error>) {
        let written = self.writing.take();
        let same = |base: &Arc<Pod>| written.is_some_and(|written| written.metadata.uid == base.metadata.uid);
        match result {
            // Meanwhile another object took its place, and was told nothing yet.
            Ok(_) if !self.base.as_ref().is_some_and(same) => {}
            Ok(Written::Accepted(pod)) => {
                let newest = self.base.as_deref().filter(|base| version(base) > version(&pod)).unwrap_or(&pod);
                let is_overwritten = is_overwritten(&status, newest);
                // Of the same object the watch's copy is kept, which the worker holds anyway.
                if self.base.as_ref().is_some_and(|base| version(&pod) > version(base)) {
                    self.seen(&Arc::new(trim(*pod)));
                }
                self.accepted = (!is_overwritten).then_some(status);
                if is_overwritten {
                    self.retry.failed();
                } else {
                    self.retry.worked();
                    if let Some(since) = self.since.take() {
                        STATUS_SYNC.record([], since.elapsed().as_secs_f64());
                    }
                }
            }
            // The watch will say so too.
            Ok(Written::Gone) => self.accepted = Some(status),
            Err(error) => {
                tracing::debug!(error = %describe(&error), "pod status not written, will retry");
                self.retry.failed();
            }
        }
    }

    /// When to try again after a failure.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        self.retry.at().filter(|_| self.writing.is_none())
    }
}

/// Whether somebody has written over what the server had accepted.
fn is_overwritten(ours: &PodStatus, pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|theirs| pod::overwritten(ours, theirs))
}

/// Resource versions are numbers that grow (KEP-5504); what is not counts as old.
fn version(pod: &Pod) -> u128 {
    pod.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodCondition;

    use super::*;

    fn pod(version: &str) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.resource_version = Some(version.to_owned());
        Arc::new(pod)
    }

    fn status(phase: &str) -> Arc<PodStatus> {
        Arc::new(PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() })
    }

    #[test]
    fn the_latest_is_sent_when_the_one_before_has_arrived() {
        let mut publication = Publication::default();
        assert!(publication.next(&status("Pending")).is_none());
        publication.seen(&pod("5"));
        let first = publication.next(&status("Pending")).unwrap();
        assert!(publication.next(&status("Running")).is_none());
        publication.written(first.status, Ok(Written::Accepted(Box::new(Pod::clone(&pod("7"))))));
        publication.seen(&pod("6"));
        let second = publication.next(&status("Running")).unwrap();
        assert_eq!(version(&second.base), 7);
        publication.written(second.status, Ok(Written::Accepted(Box::default())));
        assert!(publication.has(Some(&status("Running"))));
        assert!(publication.next(&status("Running")).is_none());
    }

    #[test]
    fn what_others_have_written_over_is_sent_again() {
        let ready = |ready: &str| {
            let condition = |type_: &str, status: &str| PodCondition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                ..PodCondition::default()
            };
            let conditions = Some(vec![condition("Ready", ready), condition("example.com/gate", "True")]);
            PodStatus { conditions, ..PodStatus::default() }
        };
        let object =
            |version: &str, status: PodStatus| Arc::new(Pod { status: Some(status), ..Pod::clone(&pod(version)) });
        let ours = Arc::new(ready("True"));
        let mut publication = Publication::default();
        publication.seen(&pod("1"));
        let write = publication.next(&ours).unwrap();
        publication.written(write.status, Ok(Written::Accepted(Box::new(Pod::clone(&object("2", ready("True")))))));
        // Conditions of others, and what is older than the answer, are nobody's business.
        let mut foreign = ready("True");
        foreign.conditions.as_mut().unwrap()[1].status = "False".to_owned();
        publication.seen(&object("3", foreign));
        publication.seen(&object("1", ready("False")));
        assert!(publication.next(&ours).is_none());
        publication.seen(&object("4", ready("False")));
        let again = publication.next(&ours).unwrap();
        assert_eq!(version(&again.base), 4);
        publication.written(again.status, Ok(Written::Accepted(Box::new(Pod::clone(&object("5", ready("True")))))));
        assert!(publication.next(&ours).is_none());
    }

    #[test]
    fn what_was_told_to_another_object_was_not_told_to_this_one() {
        let object = |version: &str, uid: &str| {
            let mut pod = Pod::clone(&pod(version));
            pod.metadata.uid = Some(uid.to_owned());
            Arc::new(pod)
        };
        let mut publication = Publication::default();
        publication.seen(&object("1", "a"));
        let write = publication.next(&status("Running")).unwrap();
        publication.seen(&object("2", "b"));
        publication.written(write.status, Ok(Written::Gone));
        let again = publication.next(&status("Running")).unwrap();
        assert_eq!(again.base.metadata.uid.as_deref(), Some("b"));
        publication.lost();
        publication.written(again.status, Ok(Written::Accepted(Box::default())));
        assert!(publication.next(&status("Running")).is_none() && !publication.has(Some(&status("Running"))));
    }

    #[tokio::test]
    async fn a_failure_is_tried_again_later() {
        let mut publication = Publication::default();
        publication.seen(&pod("1"));
        let write = publication.next(&status("Pending")).unwrap();
        publication.written(write.status, Err(kube::Error::LinesCodecMaxLineLengthExceeded));
        assert!(publication.wake_at().is_some());
        assert!(publication.next(&status("Pending")).is_none());
    }
}
