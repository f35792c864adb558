//! The status of one pod on its way to the API server: one write at a time, always the latest, again until it is there.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::time::Instant;

use super::source::trim;
use super::status::Written;
use crate::client::backoff::Retry;
use crate::client::watch::describe;

const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// What is known of the server's copy.
#[derive(Debug)]
pub struct Publication {
    /// The object as the server has it.
    base: Option<Arc<Pod>>,
    accepted: Option<Arc<PodStatus>>,
    /// The object that is being written to.
    writing: Option<Arc<Pod>>,
    retry: Retry,
}

/// What to send now.
pub struct Write {
    pub base: Arc<Pod>,
    pub status: Arc<PodStatus>,
}

impl Default for Publication {
    fn default() -> Self {
        Self { base: None, accepted: None, writing: None, retry: Retry::new(RETRY.0, RETRY.1) }
    }
}

impl Publication {
    /// The watch has brought an object.
    pub fn seen(&mut self, pod: &Arc<Pod>) {
        let newer = self.base.as_ref().is_none_or(|base| version(pod) >= version(base));
        if newer && !self.base.as_ref().is_some_and(|base| Arc::ptr_eq(base, pod)) {
            if self.base.as_ref().is_some_and(|base| base.metadata.uid != pod.metadata.uid) {
                self.accepted = None;
            }
            self.base = Some(Arc::clone(pod));
        }
    }

    /// There is no object any more: nothing can be sent.
    pub fn lost(&mut self) {
        self.base = None;
        self.accepted = None;
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
        if self.writing.is_some() || !self.retry.may_begin() || self.has(Some(status)) {
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
                // Of the same object the watch's copy is kept, which the worker holds anyway.
                if self.base.as_ref().is_some_and(|base| version(&pod) > version(base)) {
                    self.seen(&Arc::new(trim(*pod)));
                }
                self.accepted = Some(status);
                self.retry.worked();
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

/// Resource versions are numbers that grow (KEP-5504); what is not counts as old.
fn version(pod: &Pod) -> u128 {
    pod.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
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
