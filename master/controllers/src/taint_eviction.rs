//! Taint eviction: pods leave nodes with NoExecute taints that they do not tolerate, or no longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
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

struct Controller {
    client: Client,
    caches: Caches,
    recorder: Recorder,
    /// When pods were first seen on a node with taints that do not say since when they are there, by key.
    seen: Mutex<HashMap<String, Timestamp>>,
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
    let controller = Controller { client: context.client(IDENTITY), caches, recorder, seen: Mutex::default() };
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

/// Since when tolerations count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// When the pod was created.
    pub(crate) created: Timestamp,
    /// When taints were seen that do not say when they were added.
    pub(crate) seen: Timestamp,
    pub(crate) now: Timestamp,
}

/// Decides from the node's NoExecute taints. A toleration counts from when the taint was added or, if that was later,
/// from when the pod was created; of several tolerations that are limited, the shortest counts.
pub(crate) fn verdict(taints: &[Taint], tolerations: &[Toleration], times: Times) -> Verdict {
    let mut leave: Option<i64> = None;
    for taint in taints {
        let matching: Vec<&Toleration> =
            tolerations.iter().filter(|toleration| api::taints::tolerates(toleration, taint)).collect();
        if matching.is_empty() {
            return Verdict::LeaveIn(0);
        }
        let since = taint.time_added.as_ref().map_or(times.seen, |time| time.0).max(times.created);
        let limits = matching.iter().filter_map(|toleration| toleration.toleration_seconds);
        for limit in limits {
            let left = since.as_second().saturating_add(limit.max(0)) - times.now.as_second();
            leave = Some(leave.map_or(left, |earlier| earlier.min(left)));
        }
    }
    leave.map_or(Verdict::Stay, |left| Verdict::LeaveIn(u64::try_from(left).unwrap_or(0)))
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Retry<kube::Error>> {
        let running = |pod: &Arc<Pod>| pod.metadata.deletion_timestamp.is_none() && !is_terminal(pod);
        let pod = self.caches.pods.get(key).filter(running);
        let node = pod.as_deref().and_then(pods::node_name).and_then(|name| self.caches.nodes.get(name));
        let (Some(pod), Some(node)) = (pod, node) else {
            self.first_seen(key, &[], Timestamp::now());
            return Ok(Outcome::Done);
        };
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let (taints, now) = (no_execute(&node), Timestamp::now());
        let times = Times { created, seen: self.first_seen(key, &taints, now), now };
        match verdict(&taints, tolerations, times) {
            Verdict::Stay => Ok(Outcome::Done),
            Verdict::LeaveIn(0) => {
                self.evict(&pod).await?;
                Ok(Outcome::Done)
            }
            Verdict::LeaveIn(seconds) => Ok(Outcome::After(Duration::from_secs(seconds))),
        }
    }

    /// Remembers when taints that do not say it were first seen, for as long as they are there.
    fn first_seen(&self, key: &str, taints: &[Taint], now: Timestamp) -> Timestamp {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if taints.iter().all(|taint| taint.time_added.is_some()) {
            seen.remove(key);
            return now;
        }
        *seen.entry(key.to_owned()).or_insert(now)
    }

    async fn evict(&self, pod: &Pod) -> Result<(), kube::Error> {
        let meta = &pod.metadata;
        let message = format!("Marking for deletion Pod {}", key_of(meta));
        self.recorder.event(reference(pod), EventType::Normal, "TaintManagerEviction", message);
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

    fn taint(key: &str, seconds_ago: i64) -> Taint {
        Taint {
            key: key.into(),
            effect: "NoExecute".into(),
            time_added: Some(Time(now() - seconds_ago.seconds())),
            value: None,
        }
    }

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        serde_json::from_value(
            json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}),
        )
        .unwrap()
    }

    #[test]
    fn the_shortest_toleration_counts_and_an_untolerated_taint_at_once() {
        let long_ago = now() - 10_000.seconds();
        let table = [
            (vec![], vec![], Verdict::Stay),
            (vec![taint("a", 10)], vec![], Verdict::LeaveIn(0)),
            (vec![taint("a", 10)], vec![toleration("a", None)], Verdict::Stay),
            (vec![taint("a", 10)], vec![toleration("a", Some(300))], Verdict::LeaveIn(290)),
            (vec![taint("a", 400)], vec![toleration("a", Some(300))], Verdict::LeaveIn(0)),
            (
                vec![taint("a", 10), taint("b", 10)],
                vec![toleration("a", Some(300)), toleration("b", Some(60))],
                Verdict::LeaveIn(50),
            ),
            (vec![taint("a", 10), taint("b", 10)], vec![toleration("a", None)], Verdict::LeaveIn(0)),
        ];
        for (taints, tolerations, expected) in table {
            let times = Times { created: long_ago, seen: now(), now: now() };
            assert_eq!(verdict(&taints, &tolerations, times), expected, "{taints:?} {tolerations:?}");
        }
        let young = Times { created: now() - 5.seconds(), seen: now(), now: now() };
        let limited = [toleration("a", Some(300))];
        assert_eq!(verdict(&[taint("a", 400)], &limited, young), Verdict::LeaveIn(295));
        // A taint of kubectl's does not say since when it is there.
        let timeless = Taint { time_added: None, ..taint("a", 0) };
        let seen = Times { created: long_ago, seen: now() - 60.seconds(), now: now() };
        assert_eq!(verdict(&[timeless], &limited, seen), Verdict::LeaveIn(240));
    }
}
