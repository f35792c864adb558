//! One pass over a Job: look, plan, write.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::{Api, Client};
use machinery::{EventType, Outcome, Retry, reference};
use serde_json::{Value, json};

use super::plan::{self, FINALIZER, Plan};
use super::{KIND, outcome, pod, time_to_live};
use crate::context::Caches;
use crate::merge;
use crate::owner::claim;
use crate::pod_control::{PodControl, candidates, owner_key};
use crate::pods;

/// Whose jobs these are, where a job says who manages it.
const MANAGER: &str = "kubernetes.io/job-controller";

pub(super) struct Controller {
    pub client: Client,
    pub caches: Caches,
    pub pods: PodControl,
}

type Pass<T> = Result<T, Retry<kube::Error>>;

impl Controller {
    pub(super) async fn reconcile(&self, key: &str) -> Pass<Outcome> {
        let Some(job) = self.caches.jobs.get(key) else {
            self.release(&self.left_behind(key)).await?;
            return Ok(Outcome::Done);
        };
        let Some(spec) = &job.spec else { return Ok(Outcome::Done) };
        if spec.managed_by.as_deref().is_some_and(|manager| manager != MANAGER) {
            return Ok(Outcome::Done);
        }
        let known = candidates(&self.caches.pods, &job.metadata);
        let selector = spec.selector.clone().unwrap_or_default();
        let claims = claim(&job.metadata, &selector, known);
        let left: Vec<Arc<Pod>> = claims.release.iter().filter(|pod| plan::is_held(pod)).cloned().collect();
        self.release(&left).await?;
        let all = self.pods.claim(&*job, claims).await?;
        let ended = job.metadata.deletion_timestamp.is_some();
        if ended || job.status.as_ref().is_some_and(outcome::is_finished) {
            let held: Vec<Arc<Pod>> = all.into_iter().filter(|pod| plan::is_held(pod)).collect();
            self.release(&held).await?;
            return if ended { Ok(Outcome::Done) } else { self.expire(&job).await };
        }
        self.hold(&all).await?;
        if !self.pods.expectations.are_met(key) {
            return Ok(Outcome::Done);
        }
        self.carry_out(key, &job, plan::plan(&job, &all, Timestamp::now())).await
    }

    async fn carry_out(&self, key: &str, job: &Job, plan: Plan) -> Pass<Outcome> {
        self.write_status(job, &plan.status).await?;
        let about = reference(job);
        if let Some((warning, reason, message)) = plan.event {
            let kind = if warning { EventType::Warning } else { EventType::Normal };
            self.pods.recorder.event(about.clone(), kind, reason, message);
        }
        self.release(&plan.release).await?;
        if !plan.delete.is_empty() {
            let uids = plan.delete.iter().filter_map(|pod| pod.metadata.uid.clone());
            self.pods.expectations.expect(key, 0, uids);
            self.pods.delete(key, &about, &plan.delete).await?;
        }
        if !plan.create.is_empty() {
            self.pods.expectations.expect(key, plan.create.len(), []);
            let new = plan.create.iter().map(|new| pod(job, *new)).collect();
            self.pods.create(key, &about, new).await?;
        }
        let wake = plan.wake.map(|seconds| u64::try_from(seconds).unwrap_or(0).max(1));
        Ok(wake.map_or(Outcome::Done, |seconds| Outcome::After(Duration::from_secs(seconds))))
    }

    /// Pods that still wait for a job that is gone.
    fn left_behind(&self, key: &str) -> Vec<Arc<Pod>> {
        let namespace = key.split('/').next().unwrap_or_default();
        let ours = |pod: &Arc<Pod>| plan::is_held(pod) && owner_key(pod, KIND).as_deref() == Some(key);
        self.caches.pods.in_namespace(namespace).into_iter().filter(ours).collect()
    }

    async fn write_status(&self, job: &Job, status: &JobStatus) -> Pass<()> {
        let old = job.status.clone().unwrap_or_default();
        if *status == old {
            return Ok(());
        }
        let meta = &job.metadata;
        let api = Api::<Job>::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        let patch = json!({
            "metadata": { "resourceVersion": meta.resource_version },
            "status": merge::difference(&old, status),
        });
        let name = meta.name.as_deref().unwrap_or_default();
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Pods that were adopted stay until they are counted, as those that the job made do.
    async fn hold(&self, pods: &[Arc<Pod>]) -> Pass<()> {
        let patch = json!({ "finalizers": [FINALIZER] });
        let loose = pods.iter().filter(|pod| pods::is_active(pod) && !plan::is_held(pod));
        let results = join_all(loose.map(|pod| self.change(pod, patch.clone()))).await;
        results.into_iter().find_map(Result::err).map_or(Ok(()), |error| Err(error.into()))
    }

    /// Lets go of pods that were counted.
    async fn release(&self, pods: &[Arc<Pod>]) -> Pass<()> {
        let patch = json!({ "$deleteFromPrimitiveList/finalizers": [FINALIZER] });
        let results = join_all(pods.iter().map(|pod| self.change(pod, patch.clone()))).await;
        results.into_iter().find_map(Result::err).map_or(Ok(()), |error| Err(error.into()))
    }

    /// Changes the metadata of a pod, if it is still there.
    async fn change(&self, pod: &Pod, mut patch: Value) -> Result<(), kube::Error> {
        let meta = &pod.metadata;
        let api = Api::<Pod>::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        if let Some(fields) = patch.as_object_mut() {
            fields.insert("uid".into(), json!(meta.uid));
        }
        let name = meta.name.as_deref().unwrap_or_default();
        match api.patch(name, &PatchParams::default(), &Patch::Strategic(json!({ "metadata": patch }))).await {
            Ok(_) => Ok(()),
            Err(error) if machinery::is_not_found(&error) || machinery::is_conflict(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes a finished job when its time is over.
    async fn expire(&self, job: &Job) -> Pass<Outcome> {
        match time_to_live(job, Timestamp::now()) {
            None => return Ok(Outcome::Done),
            Some(left) if !left.is_zero() => return Ok(Outcome::After(left)),
            Some(_) => {}
        }
        let meta = &job.metadata;
        let api = Api::<Job>::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        let only_this = Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() };
        let options = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            ..DeleteParams::default().preconditions(only_this)
        };
        match api.delete(meta.name.as_deref().unwrap_or_default(), &options).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if machinery::is_not_found(&error) => Ok(Outcome::Done),
            Err(error) => Err(error.into()),
        }
    }
}
