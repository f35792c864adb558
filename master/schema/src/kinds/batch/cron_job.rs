//! `batch/v1` CronJob.

use api::cron::Schedule;
use jiff::Timestamp;
use serde_json::Value;

use super::job_rules::{job_spec, warn_of_spec};
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part, Subresource};
use crate::pod::handlers::not_negative;
use crate::pod::warnings as pod_warnings;
use crate::table;
use crate::value::{Fields, object_in, set_if_unset};
use crate::warnings::Warnings;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.batch.v1.CronJob",
    short_names: &["cj"],
    categories: &["all"],
    subresources: &[Subresource::status("batch", "v1", "CronJob")],
    generation: true,
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, validate_update, warnings, ..Hooks::PLAIN },
    ..Kind::namespaced("batch", "v1", NAMES)
};

const NAMES: Names = Names { kind: "CronJob", list: "CronJobList", plural: "cronjobs", singular: "cronjob" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Schedule", "When jobs are made"),
    Column::text("Timezone", "The time zone of the schedule"),
    Column { kind: "boolean", ..Column::text("Suspend", "Whether no jobs are made") },
    Column::integer("Active", "Jobs that run"),
    Column::text("Last Schedule", "When the last job was made"),
    Column::AGE,
    Column::wide("Containers", "Names of the template's containers"),
    Column::wide("Images", "Images of the template's containers"),
    Column::wide("Selector", "Label selector of the pods"),
];

/// Jobs are called after the CronJob with eleven characters more, and may have 63.
const LONGEST_NAME: usize = 52;
const POLICIES: &[&str] = &["Allow", "Forbid", "Replace"];

fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    let spec = object_in(object, "spec");
    set_if_unset(spec, "concurrencyPolicy", "Allow");
    set_if_unset(spec, "suspend", false);
    set_if_unset(spec, "successfulJobsHistoryLimit", 3);
    set_if_unset(spec, "failedJobsHistoryLimit", 1);
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let job = spec.at("jobTemplate").at("spec");
    let [names, images] = table::containers(job.at("template"));
    let last = match status.get("lastScheduleTime") {
        None | Some(Value::Null) => "<none>".to_owned(),
        time => table::since(time, now),
    };
    vec![
        table::name(object),
        spec.text("schedule").into(),
        table::or_none(spec.text("timeZone")),
        if spec.flag("suspend") { "True".into() } else { "False".into() },
        status.list("active").len().into(),
        last.into(),
        table::age(object, now),
        names,
        images,
        table::selector(job.at("selector")),
    ]
}

fn validate(object: &Value, errors: &mut Errors) {
    spec(object.at("spec"), &Value::Null, errors);
    let name = object.at("metadata").text("name");
    if name.len() > LONGEST_NAME {
        let path = Path::root("metadata");
        errors.invalid(&path.child("name"), name, "must be no more than 52 characters");
    }
}

fn validate_update(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    if part == Part::Main {
        spec(object.at("spec"), old.at("spec"), errors);
    }
}

fn spec(spec: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    match spec.text("schedule") {
        "" => errors.required(&path.child("schedule"), ""),
        text => schedule(text, spec, old, errors),
    }
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(spec, field, &path, errors);
    }
    if spec.at("timeZone") != old.at("timeZone") || old.is_null() {
        time_zone(spec, &path.child("timeZone"), errors);
    }
    match spec.text("concurrencyPolicy") {
        "" => errors.required(&path.child("concurrencyPolicy"), ""),
        policy if POLICIES.contains(&policy) => {}
        policy => errors.not_supported(&path.child("concurrencyPolicy"), policy, POLICIES),
    }
    let job = spec.at("jobTemplate").at("spec");
    let path = path.child("jobTemplate");
    let path = path.child("spec");
    job_spec(job, &path, errors);
    if job.has("selector") {
        errors.invalid(&path.child("selector"), job.at("selector").clone(), "`selector` will be auto-generated");
    }
    if job.flag("manualSelector") {
        errors.not_supported(&path.child("manualSelector"), true, &["nil", "false"]);
    }
}

fn schedule(text: &str, spec: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let path = path.child("schedule");
    if let Err(error) = Schedule::parse(text) {
        errors.invalid(&path, text, &error.to_string());
    }
    if !text.contains("TZ") {
        return;
    }
    if !old.text("schedule").contains("TZ") {
        errors.invalid(&path, text, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if spec.has("timeZone") {
        errors.invalid(&path, text, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
    }
}

fn time_zone(spec: &Value, path: &Path, errors: &mut Errors) {
    let Some(name) = spec.at("timeZone").as_str() else { return };
    if name.is_empty() {
        return errors.invalid(path, name, "timeZone must be nil or non-empty string");
    }
    let plain = |part: &str| {
        let known = part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+'));
        known && !matches!(part, "" | "." | "..") && part.len() <= 14 && !part.starts_with('-')
    };
    if !name.split('/').all(plain) {
        return errors.invalid(path, name, &format!("unknown time zone {name}"));
    }
    if name.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(path, name, detail);
    }
    if jiff::tz::TimeZone::get(name).is_err() {
        errors.invalid(path, name, &format!("unknown time zone {name}"));
    }
}

fn warnings(part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    let spec = object.at("spec");
    if old.is_none() {
        pod_warnings::maker_name(object, warnings);
    }
    if pod_warnings::is_due(part, object, old) {
        warn_of_spec(spec.at("jobTemplate").at("spec"), &Path::root("spec").child("jobTemplate.spec"), warnings);
    }
    if part == Part::Main && old.is_some() && spec.text("schedule").contains("TZ") {
        warnings.say(
            "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
             https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
        );
    }
}
