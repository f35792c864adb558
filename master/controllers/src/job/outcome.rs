//! Whether a Job has succeeded or failed, and the conditions that say so.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::indexes;
use super::plan::{Pods, is_indexed, uncounted};
use super::rules::{self, Action};
use crate::pods;

/// How a job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub failed: bool,
    pub reason: String,
    pub message: String,
}

fn failure(reason: &str, message: &str) -> Option<Verdict> {
    Some(Verdict { failed: true, reason: reason.into(), message: message.into() })
}

fn success(reason: &str, message: &str) -> Option<Verdict> {
    Some(Verdict { failed: false, reason: reason.into(), message: message.into() })
}

pub(super) fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

pub(super) fn is_true(status: &JobStatus, kind: &str) -> bool {
    condition(status, kind).is_some_and(|condition| condition.status == "True")
}

pub(super) fn is_finished(status: &JobStatus) -> bool {
    is_true(status, "Complete") || is_true(status, "Failed")
}

/// Sets a condition.
pub(super) fn set(status: &mut JobStatus, kind: &str, on: bool, (reason, message): (&str, &str), now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.into(),
        status: if on { "True" } else { "False" }.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}

/// What was decided before, or what must be decided now.
pub(super) fn judge(spec: &JobSpec, status: &JobStatus, pods: &Pods, now: Timestamp) -> Option<Verdict> {
    for (kind, failed) in [("FailureTarget", true), ("SuccessCriteriaMet", false)] {
        if let Some(known) = condition(status, kind).filter(|condition| condition.status == "True") {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            return Some(Verdict { failed, reason: text(&known.reason), message: text(&known.message) });
        }
    }
    by_policy(spec, pods)
        .or_else(|| by_success_policy(spec, status))
        .or_else(|| by_backoff(spec, status, pods))
        .or_else(|| by_deadline(spec, status, now))
        .or_else(|| by_indexes(spec, status))
        .or_else(|| by_completions(spec, status, pods))
}

fn by_policy(spec: &JobSpec, pods: &Pods) -> Option<Verdict> {
    let matches = pods.failed.iter().filter_map(|pod| rules::action(spec, pod));
    let (_, message) = matches.into_iter().find(|(action, _)| *action == Action::FailJob)?;
    failure("PodFailurePolicy", &message)
}

fn by_success_policy(spec: &JobSpec, status: &JobStatus) -> Option<Verdict> {
    let policy = spec.success_policy.as_ref()?;
    let completed = indexes::read(status.completed_indexes.as_deref().unwrap_or_default());
    policy.rules.iter().enumerate().find_map(|(index, rule)| {
        let wanted = rule.succeeded_indexes.as_deref().map(indexes::read);
        let found = match &wanted {
            Some(wanted) => wanted.intersection(&completed).count(),
            None => completed.len(),
        };
        let needed = match (rule.succeeded_count, &wanted) {
            (Some(count), _) => usize::try_from(count).unwrap_or(usize::MAX),
            (None, Some(wanted)) => wanted.len(),
            (None, None) => return None,
        };
        (found >= needed).then(|| success("SuccessPolicy", &format!("Matched rules at index {index}")))?
    })
}

fn by_backoff(spec: &JobSpec, status: &JobStatus, pods: &Pods) -> Option<Verdict> {
    let limit = spec.backoff_limit.unwrap_or(6);
    let (_, held) = uncounted(status);
    let failed = status.failed.unwrap_or(0).saturating_add(i32::try_from(held.len()).unwrap_or(i32::MAX));
    let restarts_in_place =
        spec.template.spec.as_ref().is_some_and(|pod| pod.restart_policy.as_deref() == Some("OnFailure"));
    let restarts: i32 = pods.active.iter().map(|pod| pods::restarts(pod) + pods::init_restarts(pod)).sum();
    let too_many = failed > limit || (restarts_in_place && restarts > 0 && restarts >= limit);
    too_many.then(|| failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"))?
}

/// Seconds until the job may no longer run.
pub(super) fn deadline(spec: &JobSpec, status: &JobStatus, now: Timestamp) -> Option<i64> {
    let start = status.start_time.as_ref().filter(|_| spec.suspend != Some(true))?;
    Some(start.0.as_second() + spec.active_deadline_seconds? - now.as_second())
}

fn by_deadline(spec: &JobSpec, status: &JobStatus, now: Timestamp) -> Option<Verdict> {
    deadline(spec, status, now).filter(|left| *left <= 0)?;
    failure("DeadlineExceeded", "Job was active longer than specified deadline")
}

fn by_indexes(spec: &JobSpec, status: &JobStatus) -> Option<Verdict> {
    let failed = indexes::read(status.failed_indexes.as_deref().unwrap_or_default());
    spec.backoff_limit_per_index?;
    let failed = i32::try_from(failed.len()).unwrap_or(i32::MAX);
    if spec.max_failed_indexes.is_some_and(|most| failed > most) {
        return failure("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes");
    }
    let all = spec.completions.unwrap_or(0) <= failed.saturating_add(status.succeeded.unwrap_or(0));
    (failed > 0 && all).then(|| failure("FailedIndexes", "Job has failed indexes"))?
}

fn by_completions(spec: &JobSpec, status: &JobStatus, pods: &Pods) -> Option<Verdict> {
    let (held, _) = uncounted(status);
    let held = if is_indexed(spec) { 0 } else { i32::try_from(held.len()).unwrap_or(i32::MAX) };
    let done = status.succeeded.unwrap_or(0).saturating_add(held);
    let complete = match spec.completions {
        Some(completions) => done >= completions,
        None => done > 0 && pods.active.is_empty(),
    };
    complete.then(|| success("CompletionsReached", "Reached expected number of succeeded pods"))?
}

/// Writes down what was decided; the job has ended when nothing of it is open. Answers with what users are told.
pub(super) fn conclude(
    status: &mut JobStatus,
    verdict: Option<&Verdict>,
    open: bool,
    now: Timestamp,
) -> Option<(bool, &'static str, String)> {
    let verdict = verdict?;
    let said = (verdict.reason.as_str(), verdict.message.as_str());
    let (target, end) = if verdict.failed { ("FailureTarget", "Failed") } else { ("SuccessCriteriaMet", "Complete") };
    if !is_true(status, target) {
        set(status, target, true, said, now);
    }
    if open {
        return None;
    }
    set(status, end, true, said, now);
    if verdict.failed {
        // Events have a fixed set of reasons.
        const REASONS: [&str; 5] = [
            "PodFailurePolicy",
            "BackoffLimitExceeded",
            "DeadlineExceeded",
            "MaxFailedIndexesExceeded",
            "FailedIndexes",
        ];
        let reason = REASONS.into_iter().find(|reason| *reason == verdict.reason).unwrap_or("Failed");
        return Some((true, reason, verdict.message.clone()));
    }
    status.completion_time = Some(Time(now));
    Some((false, "Completed", "Job completed".into()))
}
