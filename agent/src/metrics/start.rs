//! How long pods take to start (`pkg/kubelet/util/pod_startup_latency_tracker.go`).

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

use super::families::{IMAGE_PULLS, POD_START_DURATION, POD_START_SLI, POD_START_TOTAL};
use super::lock;

/// From the first pull of a pod until its last one ended, by pod.
static PULLS: Mutex<BTreeMap<String, (Instant, Instant)>> = Mutex::new(BTreeMap::new());

/// From these sizes in MiB on, how upstream's metrics name an image's size.
const SIZES: [(u64, &str); 12] = [
    (102_400, "GT100GB"),
    (61_440, "60GB-100GB"),
    (40_960, "40GB-60GB"),
    (30_720, "30GB-40GB"),
    (20_480, "20GB-30GB"),
    (10_240, "10GB-20GB"),
    (5_120, "5GB-10GB"),
    (1_024, "1GB-5GB"),
    (500, "500MB-1GB"),
    (100, "100MB-500MB"),
    (10, "10MB-100MB"),
    (0, "0-10MB"),
];

fn size_name(bytes: u64) -> &'static str {
    SIZES.into_iter().find(|(from, _)| bytes > from << 20).map_or("N/A", |(_, name)| name)
}

/// When images of pods that start were pulled.
#[derive(Debug)]
pub struct Pulls;

impl Pulls {
    /// An image was pulled for a pod.
    pub fn pulled(uid: &str, begun: Instant, ended: Instant) {
        let mut pulls = lock(&PULLS);
        let span = pulls.entry(uid.to_owned()).or_insert((begun, ended));
        *span = (span.0.min(begun), span.1.max(ended));
    }

    /// An image of so many bytes was pulled in this time, which includes its wait for others.
    pub fn took(bytes: u64, took: Duration) {
        IMAGE_PULLS.observe([size_name(bytes).into()], took);
    }

    fn take(uid: &str) -> Duration {
        let span = lock(&PULLS).remove(uid);
        span.map_or(Duration::ZERO, |(begun, ended)| ended.duration_since(begun))
    }
}

/// The start of one pod, which is observed once.
#[derive(Debug)]
pub struct PodStart {
    /// When the pod was seen first; `None` once its start was observed, or when it ran before.
    seen: Option<Instant>,
}

impl PodStart {
    /// A pod is seen; `found`: something of it was here before.
    #[must_use]
    pub fn new(found: bool) -> Self {
        Self { seen: (!found).then(Instant::now) }
    }

    /// The API server has this status of the pod.
    pub fn told(&mut self, pod: &Pod, status: &PodStatus, now: Timestamp) {
        let Some(seen) = self.seen.filter(|_| status.phase.as_deref() == Some("Running")) else { return };
        self.seen = None;
        let pulls = Pulls::take(pod.metadata.uid.as_deref().unwrap_or_default());
        POD_START_DURATION.observe([], seen.elapsed());
        let Some(created) = pod.metadata.creation_timestamp.as_ref() else { return };
        let total = Duration::try_from(now.duration_since(created.0)).unwrap_or_default();
        POD_START_TOTAL.observe([], total);
        POD_START_SLI.observe([], total.saturating_sub(pulls).saturating_sub(initializing(status)));
    }

    /// The pod is no more.
    pub fn ended(&mut self, uid: &str) {
        self.seen = None;
        Pulls::take(uid);
    }
}

/// How long init containers that have ended ran.
fn initializing(status: &PodStatus) -> Duration {
    let ran = |status: &ContainerStatus| {
        let ended = status.state.as_ref()?.terminated.as_ref()?;
        let (begun, ended) = (ended.started_at.as_ref()?, ended.finished_at.as_ref()?);
        Duration::try_from(ended.0.duration_since(begun.0)).ok()
    };
    status.init_container_statuses.iter().flatten().filter_map(ran).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(phase: &str) -> PodStatus {
        let ended = json!({"startedAt": "2026-01-01T00:00:01Z", "finishedAt": "2026-01-01T00:00:04Z", "exitCode": 0});
        let init = json!([{"name": "i", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"terminated": ended}}]);
        serde_json::from_value(json!({"phase": phase, "initContainerStatuses": init})).unwrap()
    }

    #[test]
    fn a_start_is_observed_once_and_pulls_are_forgotten() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "start-1"}})).unwrap();
        let (begun, now) = (Instant::now(), Timestamp::UNIX_EPOCH);
        Pulls::pulled("start-1", begun, begun + Duration::from_secs(2));
        Pulls::pulled("start-1", begun + Duration::from_secs(1), begun + Duration::from_secs(5));
        let mut start = PodStart::new(false);
        start.told(&pod, &status("Pending"), now);
        assert!(start.seen.is_some());
        start.told(&pod, &status("Running"), now);
        assert!(start.seen.is_none());
        assert_eq!(Pulls::take("start-1"), Duration::ZERO, "taken");
        assert!(PodStart::new(true).seen.is_none());
    }

    #[test]
    fn images_are_told_apart_by_size() {
        let mib = 1 << 20;
        let names = [0, 1, 10 * mib, 10 * mib + 1, 700 * mib, 4096 * mib, 200_000 * mib].map(size_name);
        assert_eq!(names, ["N/A", "0-10MB", "0-10MB", "10MB-100MB", "500MB-1GB", "1GB-5GB", "GT100GB"]);
    }

    #[test]
    fn time_of_init_containers_is_known_by_their_ends() {
        assert_eq!(initializing(&status("Running")), Duration::from_secs(3));
        assert_eq!(initializing(&PodStatus::default()), Duration::ZERO);
    }
}
