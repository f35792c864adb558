//! Keeps the content of a running pod's volumes up to date: when an object or a field of the pod that they are made
//! from has changed, and before a token ends.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use pod::{Event, Stage, Step};
use tokio::time::Instant;

use super::jobs::{Done, guarded};
use super::{Worker, pod_of};
use crate::client::backoff::Backoff;
use crate::pods::objects::{ApiObjects, Hold, named};
use crate::pods::stages::{Say, prepare};

/// Pauses after a refresh that failed.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// When volumes are brought up to date next.
pub struct Refresh {
    objects: Hold,
    /// The `resourceVersion` and the [fingerprint] of the pod that was looked at last.
    seen: Option<(String, u64)>,
    /// Something has changed.
    due: bool,
    /// A token ends soon, or the last refresh failed.
    at: Option<Instant>,
    running: bool,
    retry: Backoff,
    /// What was told of failures since all was well.
    told: BTreeSet<String>,
}

impl Refresh {
    pub fn new(objects: Arc<ApiObjects>) -> Self {
        let retry = Backoff::new(RETRY.0, RETRY.1);
        Self {
            objects: Hold::new(objects),
            seen: None,
            due: false,
            at: None,
            running: false,
            retry,
            told: BTreeSet::new(),
        }
    }

    /// The volumes of a pod are set up from now on. All that it names is held, so that its containers start again while nobody can be asked.
    pub fn begin(&mut self, pod: &Pod) {
        self.objects.set(pod.metadata.namespace.as_deref().unwrap_or_default(), named::by_pod(pod));
        self.seen = Some((version(pod), fingerprint(pod)));
        self.due = false;
    }

    /// Looks at the pod as it is wanted now.
    fn notice(&mut self, pod: &Pod) {
        let Some((seen, before)) = &self.seen else { return };
        let version = version(pod);
        if *seen == version {
            return;
        }
        let now = fingerprint(pod);
        if *before != now {
            self.begin(pod);
            self.due = true;
        }
        self.seen = Some((version, now));
    }

    /// They were set up, or brought up to date.
    pub fn done(&mut self, renew_at: Option<Timestamp>) {
        let pause = renew_at.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
        self.at = pause.map(|pause| Instant::now() + pause.max(RETRY.0));
        self.running = false;
        self.retry.reset();
        self.told.clear();
    }

    /// It failed. Answers with what was not told before.
    fn failed(&mut self, texts: Vec<String>) -> Vec<String> {
        self.at = Some(Instant::now() + self.retry.pause());
        self.running = false;
        texts.into_iter().filter(|text| self.told.insert(text.clone())).collect()
    }

    /// There are no volumes any more.
    pub fn stop(&mut self) {
        self.objects.clear();
        (self.seen, self.due, self.at) = (None, false, None);
    }

    pub fn wake_at(&self) -> Option<Instant> {
        self.at.filter(|_| !self.running)
    }

    /// Waits for a change of an object. Cancel-safe.
    pub async fn changed(&self) {
        self.objects.changed().await;
    }

    pub fn is_running(&self) -> bool {
        self.running
    }

    fn is_due(&self) -> bool {
        !self.running && (self.due || self.at.is_some_and(|at| at <= Instant::now()))
    }
}

impl Worker {
    /// An object that the volumes are made from has changed: what failed for want of it may be tried again.
    pub(super) fn object_changed(&mut self) {
        self.refresh.due = true;
        self.memory.failures.remove(&Stage::Volumes);
    }

    /// Volumes stay as they are. That an object or a key is gone is told, as of a pod that does not start for it.
    pub(super) fn refresh_failed(&mut self, texts: Vec<String>) {
        let texts = self.refresh.failed(texts);
        // Where a namespace goes, its objects may go before its pods: upstream looks after no volumes of those that end.
        let pod = pod_of(&self.inputs.desired.borrow()).filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let Some(pod) = pod else { return };
        let say = Say::new(&self.context.recorder, Some(&pod));
        texts.iter().for_each(|text| say.event(Event::warning("FailedMount", text)));
    }

    /// Brings the content of volumes up to date, when that is due. What cannot be read stays as it is.
    pub(super) fn refresh(&mut self) {
        let asked = pod_of(&self.inputs.desired.borrow());
        let Some(pod) = self.given(asked.as_ref()) else { return };
        self.refresh.notice(&pod);
        let ready = self.memory.prepared.volumes && self.jobs.may_begin(&Step::UnmountVolumes);
        if !ready || !self.refresh.is_due() {
            return;
        }
        (self.refresh.due, self.refresh.running) = (false, true);
        let (context, ips) = (Arc::clone(&self.context), self.ips());
        self.jobs.spawn(async move {
            let result = match guarded(prepare::set_up(&context, &pod, &ips)).await {
                Ok(Ok(prepared)) => Ok(prepared),
                Ok(Err(errors)) => {
                    tracing::debug!(?errors, "volumes not refreshed, will retry");
                    Err(errors.iter().map(ToString::to_string).collect())
                }
                Err(_) => Err(Vec::new()),
            };
            Done::Refreshed { result }
        });
    }
}

fn version(pod: &Pod) -> String {
    pod.metadata.resource_version.clone().unwrap_or_default()
}

/// Changes when a field does that a running pod may change and its volumes are made from.
fn fingerprint(pod: &Pod) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&pod.metadata.labels, &pod.metadata.annotations).hash(&mut hasher);
    let Some(spec) = &pod.spec else { return hasher.finish() };
    let resources = |container: &Container, hasher: &mut DefaultHasher| {
        let Some(resources) = &container.resources else { return };
        for (name, quantity) in [&resources.requests, &resources.limits].into_iter().flatten().flatten() {
            (name, &quantity.0).hash(hasher);
        }
    };
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        resources(container, &mut hasher);
    }
    // They can mount volumes that nobody did before.
    spec.ephemeral_containers.as_ref().map_or(0, Vec::len).hash(&mut hasher);
    hasher.finish()
}
