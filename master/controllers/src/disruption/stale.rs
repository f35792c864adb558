//! Pods that were to be disrupted, and were not: after a while they do not say so any more.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use machinery::{Change, Outcome, Retry, WorkQueue, key_of};
use serde_json::json;

use crate::context::{Caches, Context};
use crate::pods;

use super::NAME;

const WORKERS: usize = 1;
const CONDITION: &str = "DisruptionTarget";
/// How long a disruption may take to begin (`stalePodDisruptionTimeout`).
const PATIENCE: Duration = Duration::from_secs(120);

struct Controller {
    client: Client,
    caches: Caches,
}

pub(super) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let wake = queue.clone();
    caches.pods.on_change(move |change| {
        if let (Change::Added(pod) | Change::Updated(_, pod), now) = (change, Timestamp::now())
            && let Some(wait) = left(pod, now)
        {
            wake.add_after(key_of(&pod.metadata), wait);
        }
    });
    let controller = Controller { client: context.client(NAME), caches };
    context.spawn_workers("stale-pod-disruption", queue, WORKERS, controller, |it: Arc<Controller>, key| async move {
        it.reconcile(&key).await
    });
}

/// How long the pod may go on saying that it is to be disrupted; none when it does not say so, or may for good.
fn left(pod: &Pod, now: Timestamp) -> Option<Duration> {
    // What a kubelet decided may take as long as it likes to begin.
    let counts = |reason: Option<&str>| reason != Some("TerminationByKubelet");
    let said = pods::condition(pod, CONDITION).filter(|one| one.status == "True" && counts(one.reason.as_deref()))?;
    if pod.metadata.deletion_timestamp.is_some() || api::pod::is_terminal(pod) {
        return None;
    }
    let since = said.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let gone_by = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(PATIENCE.saturating_sub(gone_by))
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Retry<kube::Error>> {
        let Some(pod) = self.caches.pods.get(key) else { return Ok(Outcome::Done) };
        let now = Timestamp::now();
        match left(&pod, now) {
            None => return Ok(Outcome::Done),
            Some(wait) if !wait.is_zero() => return Ok(Outcome::After(wait)),
            Some(_) => (),
        }
        let condition = json!({
            "type": CONDITION, "status": "False", "reason": null, "message": null,
            "lastTransitionTime": Time(now), "observedGeneration": pod.metadata.generation,
        });
        let patch = json!({
            "metadata": { "resourceVersion": pod.metadata.resource_version },
            "status": { "conditions": [condition] },
        });
        let api = Api::<Pod>::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
        match api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(error) if !machinery::is_not_found(&error) => Err(error.into()),
            _ => Ok(Outcome::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_disruption_that_did_not_begin_is_taken_back() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let since = Time(now - 30.seconds());
        let said = |status: &str, reason: &str| json!({ "type": CONDITION, "status": status, "reason": reason, "lastTransitionTime": since });
        let pod = |condition: Value, metadata: Value, phase: &str| {
            let pod = json!({ "metadata": metadata, "status": { "phase": phase, "conditions": [condition] } });
            left(&serde_json::from_value(pod).unwrap(), now)
        };
        let evicted = || said("True", "EvictionByEvictionAPI");
        assert_eq!(pod(evicted(), json!({}), "Running"), Some(Duration::from_secs(90)));
        assert_eq!(pod(said("False", ""), json!({}), "Running"), None);
        assert_eq!(pod(said("True", "TerminationByKubelet"), json!({}), "Running"), None);
        assert_eq!(pod(evicted(), json!({}), "Failed"), None);
        assert_eq!(pod(evicted(), json!({ "deletionTimestamp": since }), "Running"), None);
    }
}
