//! PodDisruptionBudget: keeps saying how many pods may be evicted. Evictions themselves are judged by the API server.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use machinery::{Outcome, Retry, WorkQueue, key_of};
use serde_json::json;

use crate::context::{Caches, Context};
use crate::merge;
use crate::owner::controller_of;

const NAME: &str = "disruption-controller";
const WORKERS: usize = 2;

struct Controller {
    client: Client,
    caches: Caches,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let wake = queue.clone();
    caches.disruption_budgets.on_change(move |change| wake.add(key_of(&change.object().metadata)));
    let (wake, budgets) = (queue.clone(), caches.disruption_budgets.clone());
    caches.pods.on_change(move |change| {
        let namespace = change.object().metadata.namespace.as_deref().unwrap_or_default();
        for budget in budgets.in_namespace(namespace) {
            let was = change.old().is_some_and(|old| plan::covers(&budget, old));
            if was || plan::covers(&budget, change.object()) {
                wake.add(key_of(&budget.metadata));
            }
        }
    });
    let controller = Controller { client: context.client(NAME), caches };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Retry<kube::Error>> {
        let Some(budget) = self.caches.disruption_budgets.get(key) else { return Ok(Outcome::Done) };
        let namespace = budget.metadata.namespace.as_deref().unwrap_or_default();
        let mut covered = self.caches.pods.in_namespace(namespace);
        covered.retain(|pod| plan::covers(&budget, pod));
        let scale = self.scale(namespace, &covered);
        let (status, wake) = plan::status(&budget, &covered, scale, Timestamp::now());
        self.write(&budget, &status).await?;
        let wake = wake.map(|wake| Duration::try_from(wake).unwrap_or_default());
        Ok(wake.map_or(Outcome::Done, Outcome::After))
    }

    /// How many pods the controllers of these pods want together (`getExpectedScale`). Pods without one do not count.
    fn scale(&self, namespace: &str, covered: &[Arc<Pod>]) -> i32 {
        let mut wanted: BTreeMap<String, i32> = BTreeMap::new();
        for owner in covered.iter().filter_map(|pod| controller_of(&pod.metadata)) {
            if let Some((uid, replicas)) = self.wanted(namespace, owner) {
                wanted.insert(uid, replicas);
            }
        }
        wanted.values().sum()
    }

    /// What the top controller of a pod asks for: a Deployment speaks for its ReplicaSets.
    fn wanted(&self, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
        let key = format!("{namespace}/{}", owner.name);
        let of = |meta: &ObjectMeta, replicas: Option<i32>| {
            let same = meta.uid.as_deref() == Some(owner.uid.as_str());
            same.then(|| (owner.uid.clone(), replicas.unwrap_or(1)))
        };
        match owner.kind.as_str() {
            "ReplicaSet" => {
                let set = self.caches.replica_sets.get(&key)?;
                match controller_of(&set.metadata).filter(|above| above.kind == "Deployment") {
                    Some(above) => self.wanted(namespace, above),
                    None => of(&set.metadata, set.spec.as_ref()?.replicas),
                }
            }
            "Deployment" => {
                let deployment = self.caches.deployments.get(&key)?;
                of(&deployment.metadata, deployment.spec.as_ref()?.replicas)
            }
            "StatefulSet" => {
                let set = self.caches.stateful_sets.get(&key)?;
                of(&set.metadata, set.spec.as_ref()?.replicas)
            }
            "ReplicationController" => {
                let controller = self.caches.replication_controllers.get(&key)?;
                of(&controller.metadata, controller.spec.as_ref()?.replicas)
            }
            _ => None,
        }
    }

    async fn write(&self, budget: &PodDisruptionBudget, status: &PodDisruptionBudgetStatus) -> Result<(), kube::Error> {
        if budget.status.as_ref() == Some(status) {
            return Ok(());
        }
        let meta = &budget.metadata;
        let api: Api<PodDisruptionBudget> =
            Api::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        // The API server counts evictions in the same status: whoever is late looks again.
        let patch = json!({
            "metadata": { "resourceVersion": meta.resource_version },
            "status": merge::difference(&budget.status.as_ref(), &Some(status)),
        });
        match api.patch_status(&budget.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(error) if machinery::is_not_found(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
