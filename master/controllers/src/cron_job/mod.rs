//! CronJob: makes Jobs at the times of a schedule, and keeps a few of those that have ended.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::{Api, Client, ResourceExt};
use machinery::{EventType, Outcome, Recorder, Retry, WorkQueue, key_of, reference};
use serde_json::json;

use crate::context::{Caches, Context};
use crate::merge;
use crate::owner::controller_of;

const NAME: &str = "cronjob-controller";
const WORKERS: usize = 2;

struct Controller {
    client: Client,
    caches: Caches,
    recorder: Recorder,
}

type Pass<T> = Result<T, Retry<kube::Error>>;

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let wake = queue.clone();
    caches.cron_jobs.on_change(move |change| wake.add(key_of(&change.object().metadata)));
    let wake = queue.clone();
    caches.jobs.on_change(move |change| {
        let job = change.object();
        if let Some(owner) = controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob") {
            wake.add(format!("{}/{}", job.metadata.namespace.as_deref().unwrap_or_default(), owner.name));
        }
    });
    let recorder = context.recorder(NAME, NAME);
    let controller = Controller { client: context.client(NAME), caches, recorder };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Pass<Outcome> {
        let Some(mut cron) = self.caches.cron_jobs.get(key) else { return Ok(Outcome::Done) };
        let jobs = self.caches.jobs.indexed(&format!("owner/{}", cron.uid().unwrap_or_default()));
        let mut plan = plan::plan(&cron, &jobs, Timestamp::now());
        if plan.create.is_some() {
            // The cache may not show yet what an earlier pass has made, and Replace would end it.
            let live = self.cron_jobs(&cron).get_opt(&cron.name_any()).await?;
            let Some(live) = live.filter(|live| live.uid() == cron.uid()) else { return Ok(Outcome::Done) };
            cron = Arc::new(live);
            plan = plan::plan(&cron, &jobs, Timestamp::now());
        }
        for note in &plan.notes {
            let kind = if note.warning { EventType::Warning } else { EventType::Normal };
            self.recorder.event(reference(&*cron), kind, note.reason, note.message.clone());
        }
        for job in &plan.delete {
            self.delete(&cron, job).await?;
        }
        if let Some(job) = &plan.create {
            self.create(&cron, job).await?;
        }
        // The new job is active as soon as the cache shows it.
        self.write_status(&cron, &plan.status).await?;
        let wake = plan.wake.map(|wake| Duration::try_from(wake).unwrap_or_default());
        Ok(wake.map_or(Outcome::Done, Outcome::After))
    }

    fn cron_jobs(&self, cron: &CronJob) -> Api<CronJob> {
        Api::namespaced(self.client.clone(), cron.metadata.namespace.as_deref().unwrap_or_default())
    }

    fn jobs(&self, cron: &CronJob) -> Api<Job> {
        Api::namespaced(self.client.clone(), cron.metadata.namespace.as_deref().unwrap_or_default())
    }

    async fn create(&self, cron: &CronJob, job: &Job) -> Pass<()> {
        let name = job.name_any();
        match self.jobs(cron).create(&PostParams::default(), job).await {
            Ok(_) => {
                let message = format!("Created job {name}");
                self.recorder.event(reference(cron), EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            // It was made in an earlier pass, whose status was not written.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            Err(error) if machinery::is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let message = format!("Error creating job: {}", crate::pod_control::answer(&error));
                self.recorder.event(reference(cron), EventType::Warning, "FailedCreate", message);
                Err(error.into())
            }
        }
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> Pass<()> {
        let only_this = Preconditions { uid: job.uid(), resource_version: None };
        let options = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default().preconditions(only_this)
        };
        match self.jobs(cron).delete(&job.name_any(), &options).await {
            Ok(_) => {
                let message = format!("Deleted job {}", job.name_any());
                self.recorder.event(reference(cron), EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if machinery::is_not_found(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn write_status(&self, cron: &CronJob, status: &CronJobStatus) -> Pass<()> {
        let old = cron.status.clone().unwrap_or_default();
        if *status == old {
            return Ok(());
        }
        let patch = json!({
            "metadata": { "resourceVersion": cron.metadata.resource_version },
            "status": merge::difference(&old, status),
        });
        self.cron_jobs(cron).patch_status(&cron.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }
}
