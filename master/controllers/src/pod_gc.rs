//! Pod garbage collection: pods whose node is gone, deleted pods that nobody will end (without a node, or on one that is out of
//! service, KEP-2268), and too many ended ones.

use std::sync::Arc;
use std::time::Duration;

use api::pod::is_terminal;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::DeleteParams;
use kube::{Api, Client, ResourceExt as _};
use machinery::{Change, Outcome, Retry, WorkQueue, key_of};
use serde_json::json;
use tokio::time::Instant;

use crate::context::{Caches, Context};
use crate::node_lifecycle::ready_status;
use crate::pods;
use crate::taint_eviction::{delete_noted, disruption};
use crate::trim::pods_on;

const NAME: &str = "pod-garbage-collector";
const WORKERS: usize = 2;
/// How long a node may be missing before its pods are removed: it may only be registering again.
const QUARANTINE: Duration = Duration::from_secs(40);
/// How many ended pods are kept (kube-controller-manager's --terminated-pod-gc-threshold).
const MOST_ENDED: usize = 12_500;
/// The taint by which an administrator says that a node is off, and nothing on it runs any longer.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// The key that stands for counting ended pods, and how long such wishes are gathered.
const ENDED: &str = "/ended";
const GATHER: Duration = Duration::from_secs(20);

struct Controller {
    client: Client,
    caches: Caches,
    started: Instant,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let (to, nodes) = (queue.clone(), caches.nodes.clone());
    caches.pods.on_change(move |change| {
        let pod = change.object();
        if matches!(change, Change::Deleted(_)) {
            return;
        }
        if is_terminal(pod) {
            to.add_after(ENDED, GATHER);
        }
        match pods::node_name(pod) {
            Some(name) => match nodes.get(name) {
                None => to.add_after(key_of(&pod.metadata), QUARANTINE),
                Some(node) if is_lost(pod, &node) => to.add(key_of(&pod.metadata)),
                Some(_) => (),
            },
            None if pod.metadata.deletion_timestamp.is_some() => to.add(key_of(&pod.metadata)),
            _ => (),
        }
    });
    let (to, all_pods) = (queue.clone(), caches.pods.clone());
    caches.nodes.on_change(move |change| {
        let node = change.object();
        let on_it = || pods_on(&all_pods, &node.name_any());
        if matches!(change, Change::Deleted(_)) {
            on_it().iter().for_each(|pod| to.add_after(key_of(&pod.metadata), QUARANTINE));
        } else if is_out_of_service(node) {
            on_it().iter().filter(|pod| is_lost(pod, node)).for_each(|pod| to.add(key_of(&pod.metadata)));
        }
    });
    let controller = Controller { client: context.client(NAME), caches, started: Instant::now() };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Retry<kube::Error>> {
        if key == ENDED {
            for pod in surplus(self.caches.pods.all(), MOST_ENDED) {
                self.delete(&pod, None).await?;
            }
            return Ok(Outcome::Done);
        }
        let Some(pod) = self.caches.pods.get(key) else { return Ok(Outcome::Done) };
        let node = pods::node_name(&pod).map(|name| (name, self.caches.nodes.get(name)));
        match node {
            Some((name, None)) => {
                let left = QUARANTINE.saturating_sub(self.started.elapsed());
                if !left.is_zero() {
                    return Ok(Outcome::After(left));
                }
                // The cache may be behind, and what runs there must not be forgotten (`checkIfNodeExists`).
                if Api::<Node>::all(self.client.clone()).get_metadata_opt(name).await?.is_some() {
                    return Ok(Outcome::After(QUARANTINE));
                }
                tracing::info!(pod = key, node = name, "removing a pod whose node is gone");
                self.delete(&pod, Some("PodGC: node no longer exists")).await?;
            }
            Some((name, Some(node))) if is_lost(&pod, &node) => {
                tracing::info!(pod = key, node = name, "removing a pod whose node is out of service");
                self.delete(&pod, None).await?;
            }
            None if pod.metadata.deletion_timestamp.is_some() => self.delete(&pod, None).await?,
            _ => (),
        }
        Ok(Outcome::Done)
    }

    /// Ends a pod that nobody else ends (`markFailedAndDeletePodWithCondition`).
    async fn delete(&self, pod: &Pod, why: Option<&str>) -> Result<(), kube::Error> {
        delete_noted(&self.client, pod, last_status(pod, why), DeleteParams::default().grace_period(0)).await
    }
}

/// What changes in the status of a pod that has not ended.
fn last_status(pod: &Pod, why: Option<&str>) -> Option<serde_json::Value> {
    let mut status = json!({"phase": "Failed"});
    if let (Some(why), Some(fields)) = (why, status.as_object_mut()) {
        fields.insert("conditions".into(), json!([disruption(pod, ("DeletionByPodGC", why))]));
    }
    (!is_terminal(pod)).then_some(status)
}

fn is_out_of_service(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.any(|taint| taint.key == OUT_OF_SERVICE) && ready_status(node) != "True"
}

/// Whether a pod is deleted and its node will never say that it ended.
fn is_lost(pod: &Pod, node: &Node) -> bool {
    pod.metadata.deletion_timestamp.is_some() && is_out_of_service(node)
}

/// The ended pods beyond the threshold: those that were evicted first, then the oldest.
fn surplus(all: Vec<Arc<Pod>>, most: usize) -> Vec<Arc<Pod>> {
    let mut ended: Vec<Arc<Pod>> = all.into_iter().filter(|pod| is_terminal(pod)).collect();
    let count = ended.len().saturating_sub(most);
    let reason = |pod: &Pod| pod.status.as_ref().and_then(|status| status.reason.clone());
    ended.sort_by_cached_key(|pod| {
        let meta = &pod.metadata;
        let is_evicted = reason(pod).as_deref() == Some("Evicted");
        (!is_evicted, meta.creation_timestamp.clone(), meta.name.clone())
    });
    ended.truncate(count);
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_api::FakeApi;

    fn pod(name: &str, fields: serde_json::Value) -> Arc<Pod> {
        let mut whole = json!({"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}});
        for (part, value) in fields.as_object().unwrap() {
            match (whole.get_mut(part).and_then(serde_json::Value::as_object_mut), value) {
                (Some(known), serde_json::Value::Object(more)) => known.extend(more.clone()),
                _ => whole[part] = value.clone(),
            }
        }
        Arc::new(serde_json::from_value(whole).unwrap())
    }

    #[test]
    fn of_too_many_ended_pods_the_evicted_go_first_and_then_the_oldest() {
        let ended = |name: &str, day: u32, reason: &str| {
            let created = format!("2026-01-{day:02}T00:00:00Z");
            pod(
                name,
                json!({"metadata": {"creationTimestamp": created}, "status": {"phase": "Failed", "reason": reason}}),
            )
        };
        let running = pod("running", json!({"status": {"phase": "Running"}}));
        let all = vec![
            ended("new", 3, ""),
            running,
            ended("evicted", 4, "Evicted"),
            ended("old", 1, ""),
            ended("mid", 2, ""),
        ];
        let names = |most: usize| -> Vec<String> {
            surplus(all.clone(), most).iter().filter_map(|pod| pod.metadata.name.clone()).collect()
        };
        assert_eq!(names(2), ["evicted", "old"]);
        assert!(names(4).is_empty());
    }

    #[test]
    fn a_pod_is_lost_when_it_is_deleted_on_a_node_that_is_off() {
        let node = |ready: &str, taint: &str| -> Node {
            serde_json::from_value(json!({
                "metadata": {"name": "n"}, "spec": {"taints": [{"key": taint, "effect": "NoExecute"}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        let deleted = pod("d", json!({"metadata": {"deletionTimestamp": "2026-01-02T00:00:00Z"}}));
        assert!(is_lost(&deleted, &node("Unknown", OUT_OF_SERVICE)));
        assert!(!is_lost(&deleted, &node("True", OUT_OF_SERVICE)));
        assert!(!is_lost(&deleted, &node("Unknown", "other")));
        assert!(!is_lost(&pod("r", json!({})), &node("Unknown", OUT_OF_SERVICE)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_server_is_asked_for_a_node_before_its_pods_are_removed() {
        for (api, is_removed) in [
            (FakeApi::with("1", [("/api/v1/nodes/a", json!({"metadata": {"name": "a"}}))]), false),
            (FakeApi::new("1"), true),
        ] {
            let caches = Caches::default();
            caches.pods.apply(Pod::clone(&pod(
                "p",
                json!({"metadata": {"namespace": "n"}, "spec": {"nodeName": "a", "containers": []}}),
            )));
            let controller = Controller { client: api.client(), caches, started: Instant::now() };
            tokio::time::advance(QUARANTINE).await;
            let outcome = controller.reconcile("n/p").await.unwrap();
            assert_eq!(matches!(outcome, Outcome::After(_)), !is_removed, "{outcome:?}");
            let removed = api.taken().iter().any(|taken| taken == "DELETE /api/v1/namespaces/n/pods/p");
            assert_eq!(removed, is_removed, "{:?}", api.taken());
        }
    }

    #[test]
    fn what_ended_is_told_nothing_more() {
        assert_eq!(last_status(&pod("e", json!({"status": {"phase": "Succeeded"}})), Some("why")), None);
        let plain = last_status(&pod("r", json!({})), None).unwrap();
        assert_eq!(plain, json!({"phase": "Failed"}));
        let noted = last_status(&pod("r", json!({})), Some("PodGC: node no longer exists")).unwrap();
        assert_eq!((&noted["phase"], &noted["conditions"][0]["type"]), (&json!("Failed"), &json!("DisruptionTarget")));
    }
}
