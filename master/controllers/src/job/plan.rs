//! What becomes of a Job's pods, and what its status says (KEP-2307 for how pods are counted). Pure.
//!
//! A pod that ended is counted in three steps, so that none is counted twice or lost: its uid is written into the status,
//! then its finalizer is taken away, and when that is seen the uid turns into a number.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::outcome::{self, Verdict};
use super::rules::{self, Action};
use super::{backoff, indexes};
use crate::pods;

/// Holds a pod until it was counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often the pods of an index failed before this one.
pub(super) const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The most pods that are created or deleted in one pass.
const BURST: usize = 500;

/// A pod that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct New {
    /// Of a job with indexes.
    pub index: Option<i32>,
    /// How often pods of this index failed before.
    pub failures: i32,
}

/// Everything to be done, in this order: write the status, take finalizers away, delete, create.
#[derive(Debug)]
pub(super) struct Plan {
    pub status: JobStatus,
    pub release: Vec<Arc<Pod>>,
    pub delete: Vec<Arc<Pod>>,
    pub create: Vec<New>,
    /// When time alone changes something, in seconds.
    pub wake: Option<i64>,
    /// Reason and message of a change that users are told of; whether it is a warning.
    pub event: Option<(bool, &'static str, String)>,
}

/// The pods of a job by what they do.
pub(super) struct Pods {
    pub active: Vec<Arc<Pod>>,
    pub terminating: Vec<Arc<Pod>>,
    pub succeeded: Vec<Arc<Pod>>,
    pub failed: Vec<Arc<Pod>>,
}

pub(super) fn is_held(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    annotation(pod, INDEX)?.parse().ok()
}

pub(super) fn failures_before(pod: &Pod) -> i32 {
    annotation(pod, INDEX_FAILURES).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

impl Pods {
    pub(super) fn sorted(spec: &JobSpec, all: &[Arc<Pod>]) -> Pods {
        let mut pods = Pods { active: vec![], terminating: vec![], succeeded: vec![], failed: vec![] };
        // A pod that is being deleted counts as failed already, unless replacements wait for the end.
        let at_once = spec.pod_replacement_policy.as_deref() != Some("Failed");
        for pod in all {
            let deleting = pod.metadata.deletion_timestamp.is_some();
            let list = match pods::phase(pod) {
                "Succeeded" => &mut pods.succeeded,
                "Failed" => &mut pods.failed,
                _ if !deleting => &mut pods.active,
                _ => {
                    if at_once && is_held(pod) {
                        pods.failed.push(pod.clone());
                    }
                    &mut pods.terminating
                }
            };
            list.push(pod.clone());
        }
        pods
    }
}

/// What is done about a job that has not finished.
pub(super) fn plan(job: &Job, all: &[Arc<Pod>], now: Timestamp) -> Plan {
    let empty = JobSpec::default();
    let spec = job.spec.as_ref().unwrap_or(&empty);
    let pods = Pods::sorted(spec, all);
    let suspended = spec.suspend == Some(true);
    let mut status = job.status.clone().unwrap_or_default();
    let mut event = suspension(&mut status, suspended, now);
    let release = count(spec, &mut status, &pods, all);
    let verdict = outcome::judge(spec, &status, &pods, now);
    let open = !pods.active.is_empty() || !pods.terminating.is_empty() || is_counting(&status);
    if let Some(told) = outcome::conclude(&mut status, verdict.as_ref(), open, now) {
        event = Some(told);
    }
    status.active = Some(number(pods.active.len())).filter(|count| *count > 0);
    status.ready = Some(number(pods.active.iter().filter(|pod| pods::is_ready(pod)).count()));
    status.terminating = Some(number(pods.terminating.len()));
    let mut plan = Plan { status, release, delete: vec![], create: vec![], wake: None, event };
    manage(spec, &pods, &verdict, suspended, &mut plan, now);
    plan
}

/// Notes whether the job rests; whoever resumes it starts its clock anew.
fn suspension(status: &mut JobStatus, suspended: bool, now: Timestamp) -> Option<(bool, &'static str, String)> {
    let known = outcome::condition(status, "Suspended").map(|condition| condition.status == "True");
    if suspended {
        status.start_time = None;
        if known == Some(true) {
            return None;
        }
        outcome::set(status, "Suspended", true, ("JobSuspended", "Job suspended"), now);
        return Some((false, "Suspended", "Job suspended".into()));
    }
    if known == Some(true) {
        outcome::set(status, "Suspended", false, ("JobResumed", "Job resumed"), now);
        status.start_time = Some(Time(now));
        return Some((false, "Resumed", "Job resumed".into()));
    }
    if status.start_time.is_none() {
        status.start_time = Some(Time(now));
    }
    None
}

pub(super) fn uncounted(status: &JobStatus) -> (Vec<String>, Vec<String>) {
    let lists = status.uncounted_terminated_pods.clone().unwrap_or_default();
    (lists.succeeded.unwrap_or_default(), lists.failed.unwrap_or_default())
}

fn is_counting(status: &JobStatus) -> bool {
    let (succeeded, failed) = uncounted(status);
    !succeeded.is_empty() || !failed.is_empty()
}

/// Counts what can be counted, notes what ended since, and answers with the pods whose finalizer may go.
fn count(spec: &JobSpec, status: &mut JobStatus, pods: &Pods, all: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let (mut succeeded, mut failed) = uncounted(status);
    let is_free = |id: &String| !all.iter().any(|pod| uid(pod) == id && is_held(pod));
    let done = succeeded.extract_if(.., |id| is_free(id)).count();
    let lost = failed.extract_if(.., |id| is_free(id)).count();
    let mut release = Vec::new();
    for pod in pods.succeeded.iter().filter(|pod| is_held(pod)) {
        if !succeeded.iter().any(|id| id == uid(pod)) {
            succeeded.push(uid(pod).to_owned());
        }
        release.push(pod.clone());
    }
    for pod in pods.failed.iter().filter(|pod| is_held(pod)) {
        let ignored = rules::action(spec, pod).is_some_and(|(action, _)| action == Action::Ignore);
        if !ignored && !failed.iter().any(|id| id == uid(pod)) {
            failed.push(uid(pod).to_owned());
        }
        release.push(pod.clone());
    }
    status.failed = Some(status.failed.unwrap_or(0) + number(lost)).filter(|count| *count > 0);
    if is_indexed(spec) {
        count_indexes(spec, status, pods);
    } else {
        status.succeeded = Some(status.succeeded.unwrap_or(0) + number(done)).filter(|count| *count > 0);
    }
    let lists = UncountedTerminatedPods {
        succeeded: Some(succeeded).filter(|list| !list.is_empty()),
        failed: Some(failed).filter(|list| !list.is_empty()),
    };
    status.uncounted_terminated_pods = Some(lists);
    release
}

fn count_indexes(spec: &JobSpec, status: &mut JobStatus, pods: &Pods) {
    let completions = spec.completions.unwrap_or(0);
    let valid = |index: &i32| (0..completions).contains(index);
    let mut completed = indexes::read(status.completed_indexes.as_deref().unwrap_or_default());
    completed.extend(pods.succeeded.iter().filter_map(|pod| index_of(pod)).filter(valid));
    completed.retain(|index| valid(index));
    status.succeeded = Some(number(completed.len())).filter(|count| *count > 0);
    status.completed_indexes = Some(indexes::write(&completed)).filter(|text| !text.is_empty());
    let Some(limit) = spec.backoff_limit_per_index else { return };
    let mut failed = indexes::read(status.failed_indexes.as_deref().unwrap_or_default());
    for pod in &pods.failed {
        let Some(index) = index_of(pod).filter(|index| valid(index) && !completed.contains(index)) else { continue };
        let action = rules::action(spec, pod).map(|(action, _)| action);
        let spent = failures_before(pod) >= limit && action != Some(Action::Ignore);
        if spent || action == Some(Action::FailIndex) {
            failed.insert(index);
        }
    }
    status.failed_indexes = Some(indexes::write(&failed));
}

/// Deletes pods that are not wanted and creates those that are missing.
fn manage(spec: &JobSpec, pods: &Pods, verdict: &Option<Verdict>, suspended: bool, plan: &mut Plan, now: Timestamp) {
    let active = pods.active.len();
    if suspended || verdict.is_some() {
        plan.delete = pods.active.iter().take(BURST).cloned().collect();
        return;
    }
    plan.wake = outcome::deadline(spec, &plan.status, now);
    let (held_succeeded, _) = uncounted(&plan.status);
    let counted = usize::try_from(plan.status.succeeded.unwrap_or(0)).unwrap_or(0);
    let done = if is_indexed(spec) { counted } else { counted + held_succeeded.len() };
    let parallel = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
    let wanted = match spec.completions {
        Some(completions) => parallel.min(usize::try_from(completions).unwrap_or(0).saturating_sub(done)),
        // A queue that is worked off: after the first success no new pods.
        None if done > 0 => active.min(parallel),
        None => parallel,
    };
    plan.delete = unwanted(spec, &pods.active, active.saturating_sub(wanted));
    if !plan.delete.is_empty() {
        return;
    }
    let waits = spec.pod_replacement_policy.as_deref() == Some("Failed");
    let held = if waits { pods.terminating.len() } else { 0 };
    let missing = wanted.saturating_sub(active + held).min(BURST);
    if missing == 0 {
        return;
    }
    // Indexes that fail by themselves wait by themselves.
    let alone = spec.backoff_limit_per_index.is_some();
    if let Some(seconds) = backoff::of_job(&plan.status, pods, now).filter(|_| !alone) {
        plan.wake = Some(plan.wake.map_or(seconds, |wake| wake.min(seconds)));
    } else if is_indexed(spec) {
        create_indexed(spec, pods, missing, plan, now);
    } else {
        plan.create = vec![New { index: None, failures: 0 }; missing];
    }
}

/// At least so many of the active pods: first those whose index is beyond completions or another pod's, too
/// (`activePodsForRemoval`).
fn unwanted(spec: &JobSpec, active: &[Arc<Pod>], least: usize) -> Vec<Arc<Pod>> {
    let mut left = active.to_vec();
    left.sort_by_key(|pod| (pods::is_ready(pod), Reverse(pod.metadata.creation_timestamp.clone())));
    let mut gone = Vec::new();
    if is_indexed(spec) {
        let valid = 0..spec.completions.unwrap_or(0);
        let mut kept = BTreeSet::new();
        // Of several pods of an index the last in the row stays.
        left.reverse();
        gone = left
            .extract_if(.., |pod| index_of(pod).is_none_or(|at| !valid.contains(&at) || !kept.insert(at)))
            .collect();
        left.reverse();
    }
    let more = least.saturating_sub(gone.len());
    gone.into_iter().chain(left.into_iter().take(more)).take(BURST).collect()
}

fn create_indexed(spec: &JobSpec, pods: &Pods, missing: usize, plan: &mut Plan, now: Timestamp) {
    let mut taken = indexes::read(plan.status.completed_indexes.as_deref().unwrap_or_default());
    taken.append(&mut indexes::read(plan.status.failed_indexes.as_deref().unwrap_or_default()));
    taken.extend(pods.active.iter().filter_map(|pod| index_of(pod)));
    if spec.pod_replacement_policy.as_deref() == Some("Failed") {
        taken.extend(pods.terminating.iter().filter_map(|pod| index_of(pod)));
    }
    let taken: BTreeSet<i32> = taken;
    let free = (0..spec.completions.unwrap_or(0)).filter(|index| !taken.contains(index));
    for index in free.take(missing) {
        let before = pods.failed.iter().map(|pod| &**pod).filter(|pod| index_of(pod) == Some(index));
        let counted =
            before.clone().filter(|pod| rules::action(spec, pod).map(|(action, _)| action) != Some(Action::Ignore));
        let failures = counted.map(|pod| failures_before(pod) + 1).max().unwrap_or(0);
        match backoff::of_index(before, now).filter(|_| spec.backoff_limit_per_index.is_some()) {
            Some(seconds) => plan.wake = Some(plan.wake.map_or(seconds, |wake| wake.min(seconds))),
            None => plan.create.push(New { index: Some(index), failures }),
        }
    }
}
