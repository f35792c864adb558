//! PodDisruptionBudget: keeps saying how many pods may be evicted. Evictions themselves are judged by the API server.

mod plan;
mod scale;
mod stale;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use machinery::{EventType, Outcome, Recorder, Retry, WorkQueue, key_of, reference};
use serde_json::json;

use crate::context::{Caches, Context};
use crate::discovery::Resources;
use crate::merge;
use scale::{Expected, Scales};

const NAME: &str = "disruption-controller";
const WORKERS: usize = 2;

/// Who says what happens to a budget and its pods.
const COMPONENT: &str = "controllermanager";
/// How long after a failure it is looked at again though nothing changed.
const AGAIN: Duration = Duration::from_secs(30);

struct Controller {
    client: Client,
    caches: Caches,
    recorder: Recorder,
    scales: Scales,
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
    stale::start(context);
    let (client, recorder) = (context.client(NAME), context.recorder(NAME, COMPONENT));
    let resources = Resources::new(client.clone());
    let scales = Scales { client: client.clone(), caches: caches.clone(), resources };
    let controller = Controller { client, caches, recorder, scales };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Retry<kube::Error>> {
        let Some(budget) = self.caches.disruption_budgets.get(key) else { return Ok(Outcome::Done) };
        let namespace = budget.metadata.namespace.as_deref().unwrap_or_default();
        let mut covered = self.caches.pods.in_namespace(namespace);
        covered.retain(|pod| plan::covers(&budget, pod));
        let expected = match plan::asks_controllers(&budget) {
            true => self.scales.of(namespace, &covered).await,
            false => Ok(Expected::default()),
        };
        self.tell(&budget, &covered, &expected);
        let now = Timestamp::now();
        let expected = match expected {
            Ok(expected) => expected,
            Err(why) => {
                self.write(&budget, &plan::failed(&budget, &why, now)).await?;
                return Ok(Outcome::After(AGAIN));
            }
        };
        let decision = plan::status(&budget, &covered, expected.pods, now);
        for pod in &decision.not_deleted {
            let message = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            self.recorder.event(reference(&**pod), EventType::Warning, "NotDeleted", message);
        }
        self.write(&budget, &decision.status).await?;
        let wake = decision.wake.map(|wake| Duration::try_from(wake).unwrap_or_default());
        Ok(wake.map_or(Outcome::Done, Outcome::After))
    }

    /// What keeps a budget from being what it seems.
    fn tell(&self, budget: &PodDisruptionBudget, covered: &[Arc<Pod>], expected: &Result<Expected, String>) {
        let say = |kind, reason, message: String| self.recorder.event(reference(budget), kind, reason, message);
        if covered.is_empty() {
            say(EventType::Normal, "NoPods", "No matching pods found".to_owned());
        }
        match expected {
            Ok(Expected { has_unmanaged: true, .. }) => {
                say(EventType::Warning, "UnmanagedPods", plan::unmanaged(budget));
            }
            Ok(_) => (),
            Err(why) => {
                let message = format!("Failed to calculate the number of expected pods: {why}");
                say(EventType::Warning, "CalculateExpectedPodCountFailed", message);
            }
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
