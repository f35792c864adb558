use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use serde_json::{Value, json};

use super::plan::plan;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cron(spec: Value, status: Value) -> CronJob {
    let mut spec = spec;
    spec["jobTemplate"] = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "template": {} } });
    let meta = json!({ "name": "c", "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-01T00:00:30Z" });
    serde_json::from_value(json!({ "metadata": meta, "spec": spec, "status": status })).unwrap()
}

fn job(name: &str, condition: Option<&str>, start: &str) -> Arc<Job> {
    let conditions: Vec<Value> = condition.iter().map(|kind| json!({ "type": kind, "status": "True" })).collect();
    let status = json!({ "conditions": conditions, "startTime": start, "completionTime": start });
    let meta = json!({ "name": name, "namespace": "n", "uid": name });
    Arc::new(serde_json::from_value(json!({ "metadata": meta, "status": status })).unwrap())
}

#[test]
fn a_job_is_made_when_it_is_due_and_once() {
    let every_minute = cron(json!({ "schedule": "* * * * *" }), json!({}));
    let early = plan(&every_minute, &[], at("2026-01-01T00:00:45Z"));
    assert!(early.create.is_none());
    assert_eq!(early.wake.unwrap().as_secs(), 15);
    let due = plan(&every_minute, &[], at("2026-01-01T00:03:10Z"));
    let made = due.create.unwrap();
    assert_eq!(made.metadata.name.as_deref(), Some("c-29453763"));
    let annotation = "batch.kubernetes.io/cronjob-scheduled-timestamp";
    assert_eq!(made.metadata.annotations.unwrap()[annotation], "2026-01-01T00:03:00Z");
    let again = CronJob { status: Some(due.status), ..every_minute };
    assert!(plan(&again, &[], at("2026-01-01T00:03:20Z")).create.is_none());
}

#[test]
fn policies_and_deadlines() {
    let running = [job("r", None, "2026-01-01T00:01:00Z")];
    let spec = |policy: &str| cron(json!({ "schedule": "* * * * *", "concurrencyPolicy": policy }), json!({}));
    let now = at("2026-01-01T00:02:10Z");
    let forbidden = plan(&spec("Forbid"), &running, now);
    assert_eq!((forbidden.create.is_none(), forbidden.notes[0].reason), (true, "JobAlreadyActive"));
    let replaced = plan(&spec("Replace"), &running, now);
    assert_eq!((replaced.create.is_some(), replaced.delete.len()), (true, 1));
    let allowed = plan(&spec("Allow"), &running, now);
    assert_eq!((allowed.create.is_some(), allowed.delete.len()), (true, 0));
    let late = cron(json!({ "schedule": "0 * * * *", "startingDeadlineSeconds": 60 }), json!({}));
    let missed = plan(&late, &[], at("2026-01-01T05:30:00Z"));
    assert_eq!((missed.create.is_none(), missed.notes[0].reason), (true, "MissSchedule"));
    let resting = cron(json!({ "schedule": "* * * * *", "suspend": true }), json!({}));
    assert!(plan(&resting, &[], now).create.is_none());
}

#[test]
fn a_job_that_exists_for_the_due_time_is_left_alone() {
    let now = at("2026-01-01T00:02:10Z");
    for policy in ["Allow", "Forbid", "Replace"] {
        let stale = cron(json!({ "schedule": "* * * * *", "concurrencyPolicy": policy }), json!({}));
        let due = plan(&stale, &[], now).create.unwrap().metadata.name.unwrap();
        for (condition, active) in [(None, 1), (Some("Complete"), 0)] {
            let found = plan(&stale, &[job(&due, condition, "2026-01-01T00:02:00Z")], now);
            assert!(found.create.is_none() && found.delete.is_empty(), "{policy}: {found:?}");
            assert_eq!(found.status.active.map_or(0, |list| list.len()), active, "{policy}");
            assert_eq!(found.status.last_schedule_time.unwrap().0, at("2026-01-01T00:02:00Z"), "{policy}");
            assert!(found.notes.is_empty(), "{policy}: {:?}", found.notes);
        }
    }
}

#[test]
fn what_has_ended_is_noted_and_then_forgotten() {
    let active = json!([{ "name": "a", "uid": "a" }, { "name": "lost", "uid": "lost" }]);
    let spec = json!({ "schedule": "0 0 1 1 *", "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1 });
    let jobs = [
        job("a", Some("Complete"), "2026-01-01T00:02:00Z"),
        job("b", Some("Complete"), "2026-01-01T00:01:00Z"),
        job("f", Some("Failed"), "2026-01-01T00:01:00Z"),
    ];
    let found = plan(&cron(spec, json!({ "active": active })), &jobs, at("2026-01-01T01:00:00Z"));
    assert_eq!(found.status.active, None);
    assert_eq!(found.status.last_successful_time.unwrap().0, at("2026-01-01T00:02:00Z"));
    assert_eq!(found.delete.iter().map(|job| job.metadata.name.clone().unwrap()).collect::<Vec<_>>(), ["b"]);
    let reasons: Vec<&str> = found.notes.iter().map(|note| note.reason).collect();
    assert_eq!(reasons, ["SawCompletedJob", "MissingJob"]);
    assert_eq!(found.notes[0].message, "Saw completed job: a, condition: Complete");
}
