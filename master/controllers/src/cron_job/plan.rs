//! Which jobs a CronJob makes and forgets. Pure (`pkg/controller/cronjob/cronjob_controllerv2.go`).

use std::sync::Arc;

use api::cron::Schedule;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;

use crate::job::ended;
use crate::owner::controller_reference;

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// How far back the last due time is looked for, narrowest first: an hour, two days, two months, nine years.
const WINDOWS: [i64; 4] = [3_600, 2 * 86_400, 62 * 86_400, 9 * 366 * 86_400];

/// A line for the user.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

fn note(warning: bool, reason: &'static str, message: impl Into<String>) -> Note {
    Note { warning, reason, message: message.into() }
}

/// Everything to be done, in this order: delete, create, write the status.
#[derive(Debug)]
pub(super) struct Plan {
    pub delete: Vec<Arc<Job>>,
    pub create: Option<Box<Job>>,
    pub status: CronJobStatus,
    pub notes: Vec<Note>,
    /// When the next job is due.
    pub wake: Option<SignedDuration>,
}

pub(super) fn plan(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let spec = &cron.spec;
    let mut plan = Plan {
        delete: history(spec, jobs),
        create: None,
        status: cron.status.clone().unwrap_or_default(),
        notes: Vec::new(),
        wake: None,
    };
    settle(&mut plan, jobs);
    if cron.metadata.deletion_timestamp.is_none() && spec.suspend != Some(true) {
        schedule(cron, spec, jobs, &mut plan, now);
    }
    if plan.status.active.as_ref().is_some_and(Vec::is_empty) {
        plan.status.active = None;
    }
    plan
}

/// Takes what has ended or is gone out of the list of active jobs.
fn settle(plan: &mut Plan, jobs: &[Arc<Job>]) {
    let mut active = plan.status.active.take().unwrap_or_default();
    for job in jobs {
        let known = active.iter().any(|one| one.uid == job.metadata.uid);
        match ended(job) {
            Some(kind) if known => {
                active.retain(|one| one.uid != job.metadata.uid);
                let message = format!("Saw completed job: {}, condition: {kind}", job.name_any());
                plan.notes.push(note(false, "SawCompletedJob", message));
                let end = job.status.as_ref().and_then(|status| status.completion_time.clone());
                if kind == "Complete" && end > plan.status.last_successful_time {
                    plan.status.last_successful_time = end;
                }
            }
            None if !known && job.metadata.deletion_timestamp.is_none() => active.push(reference(job)),
            _ => {}
        }
    }
    active.retain(|one| {
        let there = jobs.iter().any(|job| job.metadata.uid == one.uid);
        if !there {
            let message = format!("Active job went missing: {}", one.name.clone().unwrap_or_default());
            plan.notes.push(note(false, "MissingJob", message));
        }
        there
    });
    plan.status.active = Some(active);
}

fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".into()),
        kind: Some("Job".into()),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// Ended jobs beyond those that are kept, oldest first.
fn history(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let limits = [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)];
    let mut gone = Vec::new();
    for (kind, limit) in limits {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
        let mut list: Vec<&Arc<Job>> = jobs.iter().filter(|job| ended(job) == Some(kind)).collect();
        list.sort_by_key(|job| (job.status.as_ref().and_then(|status| status.start_time.clone()), job.name_any()));
        gone.extend(list.iter().take(list.len().saturating_sub(limit)).map(|job| Arc::clone(job)));
    }
    gone
}

fn schedule(cron: &CronJob, spec: &CronJobSpec, jobs: &[Arc<Job>], plan: &mut Plan, now: Timestamp) {
    let schedule = match Schedule::parse(&spec.schedule) {
        Ok(schedule) => schedule,
        Err(error) => {
            let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
            return plan.notes.push(note(true, "UnparseableSchedule", message));
        }
    };
    let name = spec.time_zone.as_deref().unwrap_or("UTC");
    let Ok(zone) = TimeZone::get(name) else {
        return plan.notes.push(note(
            true,
            "UnknownTimeZone",
            format!("invalid timeZone: {name:?}: unknown time zone {name}"),
        ));
    };
    plan.wake = schedule.next(now, &zone).map(|next| next.duration_since(now));
    let Some(due) = last_due(cron, spec, (&schedule, &zone), plan, now) else { return };
    let job = job(cron, spec, due, &zone);
    // It was made in an earlier pass, whose status was not written or is not seen yet.
    if jobs.iter().any(|one| one.metadata.name == job.metadata.name) {
        plan.status.last_schedule_time = Some(Time(due));
        return;
    }
    let active = plan.status.active.as_ref().map_or(0, Vec::len);
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if active > 0 => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            return plan.notes.push(note(false, "JobAlreadyActive", message));
        }
        Some("Replace") => {
            let running = |job: &&Arc<Job>| ended(job).is_none() && job.metadata.deletion_timestamp.is_none();
            plan.delete.extend(jobs.iter().filter(running).cloned());
            plan.status.active = Some(Vec::new());
        }
        _ => {}
    }
    plan.create = Some(Box::new(job));
    plan.status.last_schedule_time = Some(Time(due));
}

/// The latest time at which a job was due and was not made, if it is not too late for it.
fn last_due(
    cron: &CronJob,
    spec: &CronJobSpec,
    (schedule, zone): (&Schedule, &TimeZone),
    plan: &mut Plan,
    now: Timestamp,
) -> Option<Timestamp> {
    let made = plan.status.last_schedule_time.as_ref().or(cron.metadata.creation_timestamp.as_ref())?;
    let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    let due = WINDOWS.iter().find_map(|seconds| {
        let window = now.checked_sub(SignedDuration::from_secs(*seconds)).ok()?;
        let mut at = schedule.next(window.max(made.0), zone).filter(|at| *at <= now)?;
        while let Some(next) = schedule.next(at, zone).filter(|next| *next <= now && *next > at) {
            at = next;
        }
        Some(at)
    })?;
    if deadline.is_some_and(|deadline| now.duration_since(due) > deadline) {
        let message = format!("Missed scheduled time to start a job: {due}");
        plan.notes.push(note(true, "MissSchedule", message));
        return None;
    }
    Some(due)
}

fn job(cron: &CronJob, spec: &CronJobSpec, due: Timestamp, zone: &TimeZone) -> Job {
    let template = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = template.annotations.unwrap_or_default();
    let shown = due.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    annotations.insert(SCHEDULED.into(), shown.replace("+00:00", "Z"));
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron.name_any(), due.as_second() / 60)),
            namespace: cron.metadata.namespace.clone(),
            labels: template.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}
