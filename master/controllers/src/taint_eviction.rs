//! Taint eviction: pods leave nodes with NoExecute taints that they do not tolerate, or no longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::pod::is_terminal;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};
use machinery::{Change, EventType, Outcome, Recorder, Retry, WorkQueue, key_of, reference};
use serde_json::json;

use crate::context::{Caches, Context};
use crate::pods;
use crate::trim::pods_on;

const NAME: &str = "taint-eviction-controller";
/// Upstream gives it no role of its own.
const IDENTITY: &str = "node-controller";
const WORKERS: usize = 4;
/// Of events that a pod is to leave, and that it is not any more.
const REASON: &str = "TaintManagerEviction";

struct Controller {
    client: Client,
    caches: Caches,
    recorder: Recorder,
    /// Since when pods are on a node whose taints they tolerate for a while, by key.
    leaving: Mutex<HashMap<String, Timestamp>>,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let to = queue.clone();
    caches.pods.on_change(move |change| {
        let pod = change.object();
        let placed = pods::node_name(pod).is_some() && change.old().is_none_or(|old| pods::node_name(old).is_none());
        // Tolerations may be added to pods that run.
        let tolerates = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.tolerations.clone());
        let tolerates_other = change.old().is_some_and(|old| tolerates(old) != tolerates(pod));
        if placed || tolerates_other || matches!(change, Change::Deleted(_)) {
            to.add(key_of(&pod.metadata));
        }
    });
    let (to, all_pods) = (queue.clone(), caches.pods.clone());
    caches.nodes.on_change(move |change| {
        let node = change.object();
        let taints = |node: &k8s_openapi::api::core::v1::Node| no_execute(node);
        if change.old().map(|old| taints(old)).unwrap_or_default() == taints(node) {
            return;
        }
        for pod in pods_on(&all_pods, &node.name_any()) {
            to.add(key_of(&pod.metadata));
        }
    });
    let recorder = context.recorder(IDENTITY, NAME);
    let controller = Controller { client: context.client(IDENTITY), caches, recorder, leaving: Mutex::default() };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

fn no_execute(node: &k8s_openapi::api::core::v1::Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

/// What the taints of its node mean for a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may stay.
    Stay,
    /// It has to leave when this many seconds are over, counted from now; 0 is at once.
    LeaveIn(u64),
}

/// Decides from the node's NoExecute taints. Of the tolerations that count, the first one for each taint, the shortest does.
///
/// It counts from `since`, when we first saw the pod beside such taints, and not from when they were added: after a time
/// in which nobody looked, nodes shall have the time to come back.
pub(crate) fn verdict(taints: &[Taint], tolerations: &[Toleration], since: Timestamp, now: Timestamp) -> Verdict {
    let mut shortest: Option<i64> = None;
    for taint in taints {
        let Some(used) = tolerations.iter().find(|toleration| api::taints::tolerates(toleration, taint)) else {
            return Verdict::LeaveIn(0);
        };
        shortest = shortest.into_iter().chain(used.toleration_seconds).min();
    }
    shortest.map_or(Verdict::Stay, |limit| {
        let left = since.as_second().saturating_add(limit.max(0)) - now.as_second();
        Verdict::LeaveIn(u64::try_from(left).unwrap_or(0))
    })
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Retry<kube::Error>> {
        let running = |pod: &Arc<Pod>| pod.metadata.deletion_timestamp.is_none() && !is_terminal(pod);
        let pod = self.caches.pods.get(key).filter(running);
        let node = pod.as_deref().and_then(pods::node_name).and_then(|name| self.caches.nodes.get(name));
        let (Some(pod), Some(node)) = (pod, node) else {
            self.forget(key);
            return Ok(Outcome::Done);
        };
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        let (taints, now) = (no_execute(&node), Timestamp::now());
        match verdict(&taints, tolerations, self.since(key, now), now) {
            Verdict::Stay => {
                if self.forget(key) {
                    let message = format!("Cancelling deletion of Pod {key}");
                    self.recorder.event(reference(&*pod), EventType::Normal, REASON, message);
                }
                Ok(Outcome::Done)
            }
            Verdict::LeaveIn(0) => {
                self.evict(&pod).await?;
                self.forget(key);
                Ok(Outcome::Done)
            }
            Verdict::LeaveIn(seconds) => {
                self.leaving().entry(key.to_owned()).or_insert(now);
                Ok(Outcome::After(Duration::from_secs(seconds)))
            }
        }
    }

    /// Since when the pod is about to leave; now, if it is not.
    fn since(&self, key: &str, now: Timestamp) -> Timestamp {
        self.leaving().get(key).copied().unwrap_or(now)
    }

    /// Whether the pod was about to leave.
    fn forget(&self, key: &str) -> bool {
        self.leaving().remove(key).is_some()
    }

    fn leaving(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn evict(&self, pod: &Pod) -> Result<(), kube::Error> {
        let meta = &pod.metadata;
        let message = format!("Marking for deletion Pod {}", key_of(meta));
        self.recorder.event(reference(pod), EventType::Normal, REASON, message);
        let reason = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
        delete_disrupted(&self.client, pod, reason).await
    }
}

/// Notes in the pod's status why it is deleted (condition DisruptionTarget), then deletes it.
async fn delete_disrupted(client: &Client, pod: &Pod, why: (&str, &str)) -> Result<(), kube::Error> {
    let status = json!({"conditions": [disruption(pod, why)]});
    delete_noted(client, pod, Some(status), DeleteParams::default()).await
}

/// The condition DisruptionTarget.
pub(crate) fn disruption(pod: &Pod, (reason, message): (&str, &str)) -> serde_json::Value {
    json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": Time(Timestamp::now()),
        "observedGeneration": pod.metadata.generation,
    })
}

/// Deletes a pod after a note in its status.
pub(crate) async fn delete_noted(
    client: &Client,
    pod: &Pod,
    status: Option<serde_json::Value>,
    params: DeleteParams,
) -> Result<(), kube::Error> {
    let meta = &pod.metadata;
    let api = Api::<Pod>::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default());
    let name = meta.name.as_deref().unwrap_or_default();
    let gone = |error: &kube::Error| machinery::is_not_found(error) || machinery::is_conflict(error);
    if let Some(status) = status {
        let patch = json!({"metadata": {"uid": meta.uid}, "status": status});
        match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(error) if !gone(&error) => return Err(error),
            _ => (),
        }
    }
    let only_this = Preconditions { uid: meta.uid.clone(), resource_version: None };
    match api.delete(name, &params.preconditions(only_this)).await {
        Err(error) if !gone(&error) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn taint(key: &str) -> Taint {
        let long_ago = Time(now() - 10_000.seconds());
        Taint { key: key.into(), effect: "NoExecute".into(), time_added: Some(long_ago), value: None }
    }

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        serde_json::from_value(
            json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}),
        )
        .unwrap()
    }

    #[test]
    fn the_shortest_toleration_counts_and_an_untolerated_taint_at_once() {
        let table = [
            (vec![], vec![], Verdict::Stay),
            (vec![taint("a")], vec![], Verdict::LeaveIn(0)),
            (vec![taint("a")], vec![toleration("a", None)], Verdict::Stay),
            (vec![taint("a")], vec![toleration("a", Some(300))], Verdict::LeaveIn(290)),
            (vec![taint("a")], vec![toleration("a", Some(10))], Verdict::LeaveIn(0)),
            (vec![taint("a")], vec![toleration("a", Some(-1))], Verdict::LeaveIn(0)),
            (
                vec![taint("a"), taint("b")],
                vec![toleration("a", Some(300)), toleration("b", Some(60))],
                Verdict::LeaveIn(50),
            ),
            // The first that fits is used.
            (vec![taint("a")], vec![toleration("a", None), toleration("a", Some(60))], Verdict::Stay),
            (vec![taint("a"), taint("b")], vec![toleration("a", None)], Verdict::LeaveIn(0)),
        ];
        for (taints, tolerations, expected) in table {
            let got = verdict(&taints, &tolerations, now() - 10.seconds(), now());
            assert_eq!(got, expected, "{taints:?} {tolerations:?}");
        }
    }
}
