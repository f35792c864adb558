//! Deployment: rolls from the ReplicaSet of one template to that of the next.
//!
//! [`plan`] decides on one step; writing it changes ReplicaSets, whose changes wake the next pass. Every change of a
//! ReplicaSet carries the resourceVersion that the decision was made on, so that a stale cache cannot scale twice.

mod plan;
mod revision;
mod rolling;
mod scale;
mod sets;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use api::pod::is_terminal;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use machinery::{Change, EventType, Outcome, Recorder, Retry, WorkQueue, key_of, reference};
use serde_json::json;

use crate::context::{Caches, Context};
use crate::merge;
use crate::owner::{self, claim, controller_of, selects};
use crate::pod_control::{answer, candidates};
use plan::{Action, Facts};

pub(crate) use sets::scaled;

const NAME: &str = "deployment-controller";
const WORKERS: usize = 5;

struct Controller {
    client: Client,
    caches: Caches,
    recorder: Recorder,
}

/// What is to be said of a Deployment.
struct Told {
    /// The version that it was read from, or that this pass made of that one: what others wrote meanwhile is not overwritten.
    version: Option<String>,
    status: DeploymentStatus,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let to = queue.clone();
    caches.deployments.on_change(move |change| to.add(key_of(&change.object().metadata)));
    observe_sets(&caches, &queue);
    observe_pods(&caches, &queue);
    let recorder = context.recorder(NAME, NAME);
    let controller = Controller { client: context.client(NAME), caches, recorder };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

fn observe_sets(caches: &Caches, queue: &Arc<WorkQueue>) {
    let (queue, deployments) = (queue.clone(), caches.deployments.clone());
    caches.replica_sets.on_change(move |change| {
        let set = change.object();
        for version in change.old().into_iter().chain([set]) {
            if let Some(key) = deployment_key(version) {
                queue.add(key);
            }
        }
        if controller_of(&set.metadata).is_none() && !matches!(change, Change::Deleted(_)) {
            let all = deployments.in_namespace(set.metadata.namespace.as_deref().unwrap_or_default());
            for deployment in all.iter().filter(|one| wants(one, set)) {
                queue.add(key_of(&deployment.metadata));
            }
        }
    });
}

/// Recreate waits until the last old pod is gone.
fn observe_pods(caches: &Caches, queue: &Arc<WorkQueue>) {
    let (queue, sets, deployments) = (queue.clone(), caches.replica_sets.clone(), caches.deployments.clone());
    caches.pods.on_change(move |change| {
        let pod = change.object();
        if !matches!(change, Change::Deleted(_)) && !is_terminal(pod) {
            return;
        }
        let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet");
        let key = |name: &str| format!("{}/{name}", pod.metadata.namespace.as_deref().unwrap_or_default());
        let deployment = owner.and_then(|owner| sets.get(&key(&owner.name))).and_then(|set| deployment_key(&set));
        if let Some(key) = deployment
            && deployments.get(&key).is_some_and(|deployment| is_recreate(&deployment))
        {
            queue.add(key);
        }
    });
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

fn deployment_key(set: &ReplicaSet) -> Option<String> {
    let owner = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment")?;
    Some(format!("{}/{}", set.metadata.namespace.as_deref().unwrap_or_default(), owner.name))
}

fn wants(deployment: &Deployment, set: &ReplicaSet) -> bool {
    deployment.spec.as_ref().is_some_and(|spec| selects(&spec.selector, set.metadata.labels.as_ref()))
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Retry<kube::Error>> {
        let Some(deployment) = self.caches.deployments.get(key) else { return Ok(Outcome::Done) };
        let sets = self.claimed(&deployment).await?;
        let runs = |pod: &Arc<Pod>| !is_terminal(pod);
        let uids = sets.iter().filter_map(|set| set.metadata.uid.clone());
        let with_pods = uids.filter(|uid| self.caches.pods.indexed(&format!("owner/{uid}")).iter().any(runs)).collect();
        let now = jiff::Timestamp::now();
        let Some(plan) = plan::plan(Facts { deployment: &deployment, sets, with_pods, now }) else {
            return Ok(Outcome::Done);
        };
        let mut told = Told { version: deployment.metadata.resource_version.clone(), status: plan.status };
        for action in plan.actions {
            if let Err(error) = self.execute(&deployment, action, &mut told).await {
                if !machinery::is_conflict(&error) {
                    // The status tells why, though the step was not done.
                    self.write_status(&deployment, &told).await?;
                }
                return Err(error.into());
            }
        }
        self.write_status(&deployment, &told).await?;
        Ok(plan.check_after.map_or(Outcome::Done, |seconds| Outcome::After(Duration::from_secs(seconds))))
    }

    async fn claimed(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, kube::Error> {
        let Some(spec) = &deployment.spec else { return Ok(Vec::new()) };
        let meta = &deployment.metadata;
        let claims = claim(meta, &spec.selector, candidates(&self.caches.replica_sets, meta));
        let mut owned = claims.owned;
        let api = self.sets(deployment);
        for set in &claims.release {
            let patch = owner::release(meta, &set.metadata);
            machinery::unless_gone(
                api.patch(name(&set.metadata), &PatchParams::default(), &Patch::Strategic(patch)).await,
            )?;
        }
        let adopts = !claims.adopt.is_empty() && owner::may_adopt(&self.client, deployment).await?;
        for set in claims.adopt.into_iter().filter(|_| adopts) {
            let patch = owner::adoption(deployment, &set.metadata);
            machinery::unless_gone(
                api.patch(name(&set.metadata), &PatchParams::default(), &Patch::Strategic(patch)).await,
            )?;
            owned.push(set);
        }
        Ok(owned)
    }

    async fn execute(&self, of: &Deployment, action: Action, told: &mut Told) -> Result<(), kube::Error> {
        match action {
            Action::Create(set) => self.create(of, &set, told).await,
            Action::Update { set, replicas, annotations, min_ready_seconds } => {
                let patch = json!({
                    "metadata": {"resourceVersion": set.metadata.resource_version, "annotations": annotations},
                    "spec": {"replicas": replicas, "minReadySeconds": min_ready_seconds},
                });
                let name = name(&set.metadata);
                self.sets(of).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
                self.note_scaling(of, name, set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1), replicas);
                Ok(())
            }
            Action::Delete(set) => {
                let preconditions = Preconditions {
                    uid: set.metadata.uid.clone(),
                    resource_version: set.metadata.resource_version.clone(),
                };
                let params = DeleteParams::background().preconditions(preconditions);
                machinery::unless_gone(self.sets(of).delete(name(&set.metadata), &params).await)
            }
            Action::Revision(revision) => {
                let patch = json!({"metadata": {
                    "resourceVersion": told.version,
                    "annotations": {revision::REVISION: revision.to_string()},
                }});
                let api = self.deployments(of);
                match api.patch(name(&of.metadata), &PatchParams::default(), &Patch::Merge(patch)).await {
                    Ok(noted) => told.version = noted.metadata.resource_version,
                    Err(error) if machinery::is_not_found(&error) => (),
                    Err(error) => return Err(error),
                }
                Ok(())
            }
        }
    }

    async fn create(&self, of: &Deployment, set: &ReplicaSet, told: &mut Told) -> Result<(), kube::Error> {
        let error = match self.sets(of).create(&PostParams::default(), set).await {
            Ok(_) => {
                let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
                self.note_scaling(of, name(&set.metadata), 0, replicas);
                return Ok(());
            }
            Err(error) => error,
        };
        if machinery::is_namespace_terminating(&error) {
            return Ok(());
        }
        if machinery::is_already_exists(&error) {
            return self.resolve_collision(of, set, told, error).await;
        }
        let message = answer(&error);
        let text = format!("Failed to create new replica set \"{}\": {message}", name(&set.metadata));
        self.recorder.event(reference(of), EventType::Warning, "ReplicaSetCreateError", text);
        status::creation_failed(&mut told.status, message, jiff::Timestamp::now());
        Err(error)
    }

    /// The name is taken: by our own ReplicaSet that the cache does not show yet, or by another one, which the next
    /// hash avoids (status.collisionCount).
    async fn resolve_collision(
        &self,
        of: &Deployment,
        set: &ReplicaSet,
        told: &mut Told,
        error: kube::Error,
    ) -> Result<(), kube::Error> {
        let existing = self.sets(of).get(name(&set.metadata)).await?;
        let ours = controller_of(&existing.metadata).is_some_and(|owner| Some(&owner.uid) == of.metadata.uid.as_ref());
        let template = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
        if ours && sets::same_template(&template(&existing), &template(set)) {
            return Ok(());
        }
        told.status.collision_count = Some(told.status.collision_count.unwrap_or(0) + 1);
        self.write_status(of, told).await?;
        Err(error)
    }

    fn note_scaling(&self, of: &Deployment, set: &str, from: i32, to: i32) {
        let direction = match to.cmp(&from) {
            std::cmp::Ordering::Greater => "up",
            std::cmp::Ordering::Less => "down",
            std::cmp::Ordering::Equal => return,
        };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.recorder.event(reference(of), EventType::Normal, "ScalingReplicaSet", message);
    }

    async fn write_status(&self, of: &Deployment, told: &Told) -> Result<(), kube::Error> {
        let status = Some(&told.status);
        if of.status.as_ref() == status {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"resourceVersion": told.version},
            "status": merge::difference(&of.status.as_ref(), &status),
        });
        machinery::unless_gone(
            self.deployments(of).patch_status(name(&of.metadata), &PatchParams::default(), &Patch::Merge(patch)).await,
        )
    }

    fn sets(&self, of: &Deployment) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), of.metadata.namespace.as_deref().unwrap_or_default())
    }

    fn deployments(&self, of: &Deployment) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), of.metadata.namespace.as_deref().unwrap_or_default())
    }
}

fn name(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}
