//! Job: runs pods until enough of them have succeeded, or it has failed; then, if it says so, goes away after a while.

mod backoff;
mod indexes;
mod outcome;
mod plan;
mod rules;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use machinery::{Change, WorkQueue, key_of};

use crate::context::{Caches, Context};
use crate::expectations::Expectations;
use crate::owner::{controller_reference, selects};
use crate::pod_control::{self, PodControl};
use crate::pods;

use plan::{FINALIZER, INDEX, INDEX_FAILURES, New};
use work::Controller;

const NAME: &str = "job-controller";
const KIND: &str = "Job";
const WORKERS: usize = 5;
/// What pods carry that the shared cache must keep.
pub(crate) const ANNOTATIONS: [&str; 2] = [INDEX, INDEX_FAILURES];
/// The variable that tells a container its index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let expectations = Arc::new(Expectations::default());
    let caches = context.caches.clone();
    observe_jobs(&caches, &queue, &expectations);
    observe_pods(&caches, &queue, &expectations);
    let recorder = context.recorder(NAME, NAME);
    let client = context.client(NAME);
    let pods = PodControl { client: client.clone(), recorder, expectations };
    let controller = Controller { client, caches, pods };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

fn observe_jobs(caches: &Caches, queue: &Arc<WorkQueue>, expectations: &Arc<Expectations>) {
    let (queue, expectations) = (queue.clone(), expectations.clone());
    caches.jobs.on_change(move |change| {
        let key = key_of(&change.object().metadata);
        if matches!(change, Change::Deleted(_)) {
            expectations.forget(&key);
        }
        queue.add(key);
    });
}

fn observe_pods(caches: &Caches, queue: &Arc<WorkQueue>, expectations: &Arc<Expectations>) {
    let jobs = caches.jobs.clone();
    pod_control::observe(caches, KIND.into(), queue, expectations, move |namespace, pod| {
        let all = jobs.in_namespace(namespace);
        all.iter().filter(|job| wants(job, pod)).map(|job| key_of(&job.metadata)).collect()
    });
}

fn wants(job: &Job, pod: &Pod) -> bool {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selects(selector, pod.metadata.labels.as_ref()))
}

/// The condition by which a job has ended: `Complete` or `Failed`.
pub(crate) fn ended(job: &Job) -> Option<&'static str> {
    let status = job.status.as_ref()?;
    ["Complete", "Failed"].into_iter().find(|kind| outcome::is_true(status, kind))
}

/// How long a finished job stays; none when it stays for good.
fn time_to_live(job: &Job, now: Timestamp) -> Option<Duration> {
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let status = job.status.as_ref()?;
    let end = ["Complete", "Failed"].iter().find_map(|kind| {
        let condition = outcome::condition(status, kind).filter(|condition| condition.status == "True")?;
        condition.last_transition_time.as_ref()
    })?;
    let left = end.0.as_second() + i64::from(seconds) - now.as_second();
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

/// A new pod of a job.
fn pod(job: &Job, new: New) -> Pod {
    let meta = &job.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let mut pod = pods::from_template(&template, namespace, name, controller_reference(job));
    pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.into());
    let Some(index) = new.index else { return pod };
    pod.metadata.generate_name = Some(format!("{name}-{index}-"));
    pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.into(), index.to_string());
    if job.spec.as_ref().is_some_and(|spec| spec.backoff_limit_per_index.is_some()) {
        annotations.insert(INDEX_FAILURES.into(), new.failures.to_string());
    }
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{name}-{index}"));
        let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
        containers.for_each(tell_index);
    }
    pod
}

fn tell_index(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..Default::default() };
    let value_from = Some(EnvVarSource { field_ref: Some(field), ..Default::default() });
    variables.push(EnvVar { name: INDEX_VARIABLE.into(), value_from, value: None });
}
