//! StatefulSet: numbered pods, each with its name and its claims, made and removed one after the other.

mod claims;
mod plan;
mod pod;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use machinery::{Change, EventType, Outcome, Recorder, Retry, WorkQueue, key_of, reference};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::context::{Caches, Context};
use crate::expectations::Expectations;
use crate::merge;
use crate::owner::{claim, controller_of, selects};
use crate::pod_control::{PodControl, answer, candidates};
use crate::revisions;
use plan::{Facts, Plan, Step};

const NAME: &str = "statefulset-controller";
const WORKERS: usize = 5;

struct Controller {
    client: Client,
    caches: Caches,
    recorder: Recorder,
    pods: PodControl,
}

/// The revisions that pods come from and go to.
struct Revisions {
    current: Arc<ControllerRevision>,
    update: Arc<ControllerRevision>,
}

type Pass<T> = Result<T, Retry<kube::Error>>;

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let to = queue.clone();
    caches.stateful_sets.on_change(move |change| to.add(key_of(&change.object().metadata)));
    observe_pods(&caches, &queue);
    observe_claims(&caches, &queue);
    let recorder = context.recorder(NAME, NAME);
    let client = context.client(NAME);
    // Members have names of their own: nothing is ever made twice, so nothing need be waited for.
    let expectations = Arc::new(Expectations::default());
    let pods = PodControl { client: client.clone(), recorder: recorder.clone(), expectations };
    let controller = Controller { client, caches, recorder, pods };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

fn observe_pods(caches: &Caches, queue: &Arc<WorkQueue>) {
    let (queue, sets) = (queue.clone(), caches.stateful_sets.clone());
    caches.pods.on_change(move |change| {
        let pod = change.object();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        match controller_of(&pod.metadata) {
            Some(owner) if owner.kind == "StatefulSet" => queue.add(format!("{namespace}/{}", owner.name)),
            Some(_) => {}
            None if matches!(change, Change::Deleted(_)) => {}
            None => {
                for set in sets.in_namespace(namespace).iter().filter(|set| may_adopt(set, pod)) {
                    queue.add(key_of(&set.metadata));
                }
            }
        }
    });
}

/// A member waits for claims that are still to go with an earlier pod of its name.
fn observe_claims(caches: &Caches, queue: &Arc<WorkQueue>) {
    let (queue, sets) = (queue.clone(), caches.stateful_sets.clone());
    caches.claims.on_change(move |change| {
        let Change::Deleted(claim) = change else { return };
        let all = sets.in_namespace(claim.metadata.namespace.as_deref().unwrap_or_default());
        for set in all.iter().filter(|set| claims::has(set, &claim.name_any())) {
            queue.add(key_of(&set.metadata));
        }
    });
}

fn may_adopt(set: &StatefulSet, pod: &Pod) -> bool {
    let selector = set.spec.as_ref().map(|spec| &spec.selector);
    plan::ordinal(set, pod).is_some()
        && selector.is_some_and(|selector| selects(selector, pod.metadata.labels.as_ref()))
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Pass<Outcome> {
        let Some(set) = self.caches.stateful_sets.get(key) else { return Ok(Outcome::Done) };
        let Some(spec) = &set.spec else { return Ok(Outcome::Done) };
        let mut known = candidates(&self.caches.pods, &set.metadata);
        known.retain(|pod| plan::ordinal(&set, pod).is_some());
        let pods = self.pods.claim(&*set, claim(&set.metadata, &spec.selector, known)).await?;
        let known = revisions::claimed(&self.client, &self.caches.revisions, &*set, &spec.selector).await?;
        let Some(revisions) = self.revisions(&set, &known).await? else { return Ok(Outcome::Done) };
        let (current, update) = (revisions.current.name_any(), revisions.update.name_any());
        let facts = Facts { set: &set, spec, pods: &pods, current: &current, update: &update, now: Timestamp::now() };
        let Plan { steps, status, look_again } = plan::plan(&facts);
        let done = self.carry_out(&set, &revisions, steps).await;
        self.write_status(&set, &status).await?;
        done?;
        self.settle_claims(&set, &pods).await?;
        let is_live = |one: &ControllerRevision| {
            let name = one.name_any();
            [&current, &update].contains(&&name) || pods.iter().any(|pod| pod::revision_of(pod) == name)
        };
        for old in revisions::surplus(&*set, &known, is_live) {
            let gone = self.api::<ControllerRevision>(&set).delete(&old, &DeleteParams::default()).await;
            machinery::unless_gone(gone)?;
        }
        Ok(look_again.map_or(Outcome::Done, |seconds| Outcome::After(Duration::from_secs(seconds))))
    }

    fn api<K>(&self, set: &StatefulSet) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        Api::namespaced(self.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default())
    }

    /// The revisions as they are now; none when the name of a new one was taken, which a new pass settles.
    async fn revisions(&self, set: &StatefulSet, known: &[Arc<ControllerRevision>]) -> Pass<Option<Revisions>> {
        let Some(update) = self.update_revision(set, known).await? else { return Ok(None) };
        let status = set.status.as_ref();
        let said = status.and_then(|status| status.current_revision.as_deref()).unwrap_or_default();
        let current = known.iter().find(|one| one.name_any() == said).cloned();
        Ok(Some(Revisions { current: current.unwrap_or_else(|| update.clone()), update }))
    }

    async fn update_revision(
        &self,
        set: &StatefulSet,
        known: &[Arc<ControllerRevision>],
    ) -> Pass<Option<Arc<ControllerRevision>>> {
        let wanted = revisions::of(set, known);
        let revision = revisions::ensure(&self.api(set), known, wanted).await?;
        if revision.is_none() {
            let mut status = set.status.clone().unwrap_or_default();
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
            self.write_status(set, &status).await?;
        }
        Ok(revision)
    }

    async fn carry_out(&self, set: &StatefulSet, revisions: &Revisions, steps: Vec<Step>) -> Pass<()> {
        for step in steps {
            match step {
                Step::Create { ordinal, updated } => {
                    let revision = if updated { &revisions.update } else { &revisions.current };
                    self.create(set, revision, ordinal).await?;
                }
                Step::Claims(ordinal) => self.create_claims(set, ordinal).await?,
                Step::Label(pod) => {
                    let name = pod.name_any();
                    let patch = json!({ "metadata": { "labels": { (pod::POD_NAME_LABEL): name } } });
                    let patched =
                        self.api::<Pod>(set).patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
                    self.tell(set, "Update", &name, patched.map(drop))?;
                }
                Step::Delete(pod) => self.delete(set, &pod).await?,
            }
        }
        Ok(())
    }

    async fn create(&self, set: &StatefulSet, revision: &ControllerRevision, ordinal: i32) -> Pass<()> {
        let pod = pod::of(set, revision, ordinal);
        let name = pod.name_any();
        let going = |(_, claim): &(String, String)| {
            let known = self.caches.claims.get(&format!("{}/{claim}", set.namespace().unwrap_or_default()));
            known.is_some_and(|known| claims::is_stale(set, &name, &known.metadata))
        };
        if claims::names(set, ordinal).iter().any(going) {
            return Ok(());
        }
        self.create_claims(set, ordinal).await?;
        match self.api::<Pod>(set).create(&PostParams::default(), &pod).await {
            // Somebody else's pod has the name, and nobody tells when it goes.
            Err(error) if machinery::is_already_exists(&error) && !self.has(set, &name) => Err(Retry::Stale),
            // The cache was behind: its change brought the next pass.
            Err(error) if machinery::is_already_exists(&error) => Ok(()),
            Err(error) if machinery::is_namespace_terminating(&error) => Ok(()),
            result => Ok(self.tell(set, "Create", &name, result.map(drop))?),
        }
    }

    /// Whether the set has a pod of this name by now.
    fn has(&self, set: &StatefulSet, pod: &str) -> bool {
        let known = self.caches.pods.get(&format!("{}/{pod}", set.namespace().unwrap_or_default()));
        let owner = known.as_ref().and_then(|known| controller_of(&known.metadata));
        owner.is_some_and(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
    }

    async fn create_claims(&self, set: &StatefulSet, ordinal: i32) -> Pass<()> {
        for claim in claims::of(set, ordinal) {
            if self.caches.claims.get(&key_of(&claim.metadata)).is_some() {
                continue;
            }
            let (name, pod) = (claim.name_any(), format!("{}-{ordinal}", set.name_any()));
            let what = format!("Claim {name} Pod {pod} in StatefulSet {}", set.name_any());
            match self.api::<PersistentVolumeClaim>(set).create(&PostParams::default(), &claim).await {
                Ok(_) => {
                    let message = format!("Create {what} success");
                    self.recorder.event(reference(set), EventType::Normal, "SuccessfulCreate", message);
                }
                Err(error) if machinery::is_already_exists(&error) => {}
                Err(error) => {
                    let message = format!("Create {what} failed error: {}", answer(&error));
                    self.recorder.event(reference(set), EventType::Warning, "FailedCreate", message);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Pass<()> {
        let only_this = Preconditions { uid: pod.uid(), resource_version: None };
        let deleted =
            self.api::<Pod>(set).delete(&pod.name_any(), &DeleteParams::default().preconditions(only_this)).await;
        match deleted {
            Err(error) if machinery::is_conflict(&error) => Ok(()),
            Err(error) if machinery::is_not_found(&error) => Ok(()),
            result => Ok(self.tell(set, "Delete", &pod.name_any(), result.map(drop))?),
        }
    }

    /// Puts what became of a pod into an event.
    fn tell(
        &self,
        set: &StatefulSet,
        verb: &str,
        pod: &str,
        result: Result<(), kube::Error>,
    ) -> Result<(), kube::Error> {
        let what = format!("{verb} Pod {pod} in StatefulSet {}", set.name_any());
        let (kind, reason, message) = match (&result, verb) {
            (Ok(()), "Create") => (EventType::Normal, "SuccessfulCreate", format!("{what} successful")),
            (Ok(()), "Delete") => (EventType::Normal, "SuccessfulDelete", format!("{what} successful")),
            (Ok(()), _) => (EventType::Normal, "SuccessfulUpdate", format!("{what} successful")),
            (Err(error), "Create") => (EventType::Warning, "FailedCreate", failure(&what, error)),
            (Err(error), "Delete") => (EventType::Warning, "FailedDelete", failure(&what, error)),
            (Err(error), _) => (EventType::Warning, "FailedUpdate", failure(&what, error)),
        };
        self.recorder.event(reference(set), kind, reason, message);
        result
    }

    /// Gives claims to those with whom they are to go.
    async fn settle_claims(&self, set: &StatefulSet, pods: &[Arc<Pod>]) -> Pass<()> {
        let range = set.spec.as_ref().map(plan::range).unwrap_or_default();
        for pod in pods {
            let Some(ordinal) = plan::ordinal(set, pod) else { continue };
            for (_, name) in claims::names(set, ordinal) {
                let key = format!("{}/{name}", set.namespace().unwrap_or_default());
                let Some(claim) = self.caches.claims.get(&key) else { continue };
                let Some(owners) = claims::owners(set, pod, !range.contains(&ordinal), &claim.metadata) else {
                    continue;
                };
                let patch = json!({ "metadata": {
                    "resourceVersion": claim.resource_version(), "ownerReferences": owners,
                } });
                let api = self.api::<PersistentVolumeClaim>(set);
                machinery::unless_gone(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
            }
        }
        Ok(())
    }

    async fn write_status(&self, set: &StatefulSet, status: &StatefulSetStatus) -> Pass<()> {
        let old = set.status.clone().unwrap_or_default();
        if *status == old {
            return Ok(());
        }
        let patch = json!({
            "metadata": { "resourceVersion": set.resource_version() },
            "status": merge::difference(&old, status),
        });
        let api = self.api::<StatefulSet>(set);
        let written = api.patch_status(&set.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
        Ok(machinery::unless_gone(written)?)
    }
}

fn failure(what: &str, error: &kube::Error) -> String {
    format!("{what} failed error: {}", answer(error))
}
