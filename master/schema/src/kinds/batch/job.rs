//! `batch/v1` Job.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{job_rules as rules, job_status};
use crate::errors::{Errors, Path};
use crate::kind::{Column, Dependents, FieldLabel, Hooks, Kind, Names, Part, Subresource};
use crate::pod::warnings as pod_warnings;
use crate::table;
use crate::value::{Fields, object_in, set_if_unset};
use crate::warnings::Warnings;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.batch.v1.Job",
    categories: &["all"],
    subresources: &[Subresource::status("batch", "v1", "Job")],
    generation: true,
    fields: &[FieldLabel { absent: "0", ..FieldLabel::text("status.successful", "/status/succeeded") }],
    dependents: Dependents::Orphaned,
    columns: COLUMNS,
    hooks: Hooks { default, row, prepare_create, validate: rules::create, validate_update, warnings, ..Hooks::PLAIN },
    ..Kind::namespaced("batch", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Job", list: "JobList", plural: "jobs", singular: "job" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Status", "Status of the job"),
    Column::text("Completions", "Pods that succeeded of those that must"),
    Column::text("Duration", "Time that the job takes or took"),
    Column::AGE,
    Column::wide("Containers", "Names of the template's containers"),
    Column::wide("Images", "Images of the template's containers"),
    Column::wide("Selector", "Label selector of the pods"),
];

/// Labels of a job's pods; the older of each pair is the first.
pub(super) const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
pub(super) const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

fn default(object: &mut Value) {
    let Value::Object(job) = object else { return };
    let labels = job.at("spec").at("template").at("metadata").at("labels").clone();
    let meta = object_in(job, "metadata");
    if labels.is_object() && meta.entries("labels").next().is_none() {
        meta.insert("labels".into(), labels);
    }
    let spec = object_in(job, "spec");
    if !spec.has("completions") && !spec.has("parallelism") {
        spec.insert("completions".into(), 1.into());
    }
    set_if_unset(spec, "parallelism", 1);
    let limit = if spec.has("backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
    set_if_unset(spec, "backoffLimit", limit);
    set_if_unset(spec, "completionMode", "NonIndexed");
    set_if_unset(spec, "suspend", false);
    let replace = if spec.has("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    set_if_unset(spec, "podReplacementPolicy", replace);
    set_if_unset(spec, "manualSelector", false);
}

/// Makes the selector out of the uid, unless that is done by hand (`generateSelectorIfNeeded`).
fn prepare_create(object: &mut Value) {
    let Value::Object(job) = object else { return };
    if job.at("spec").flag("manualSelector") {
        return;
    }
    let name = job.at("metadata").text("name").to_owned();
    let uid = job.at("metadata").text("uid").to_owned();
    let spec = object_in(job, "spec");
    let labels = object_in(object_in(object_in(spec, "template"), "metadata"), "labels");
    for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
        for key in keys {
            labels.entry(key).or_insert_with(|| value.as_str().into());
        }
    }
    let [_, uid_label] = UID_LABELS;
    object_in(object_in(spec, "selector"), "matchLabels").entry(uid_label).or_insert_with(|| json!(uid));
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let [names, images] = table::containers(spec.at("template"));
    let done = status.int("succeeded").unwrap_or(0);
    let parallelism = spec.int("parallelism").unwrap_or(0);
    let completions = match spec.int("completions") {
        Some(wanted) => format!("{done}/{wanted}"),
        None if parallelism > 1 => format!("{done}/1 of {parallelism}"),
        None => format!("{done}/1"),
    };
    vec![
        table::name(object),
        phase(object).into(),
        completions.into(),
        duration(status, now).into(),
        table::age(object, now),
        names,
        images,
        table::selector(spec.at("selector")),
    ]
}

fn phase(job: &Value) -> &'static str {
    let is = |kind| job_status::is_true(job.at("status"), kind);
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if job.at("metadata").has("deletionTimestamp") => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn duration(status: &Value, now: Timestamp) -> String {
    let end = status.at("completionTime").as_str().and_then(|time| time.parse().ok()).unwrap_or(now);
    if status.has("startTime") { table::since(status.get("startTime"), end) } else { String::new() }
}

fn validate_update(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    if part == Part::Status {
        return job_status::validate(object, old, errors);
    }
    rules::update(object, old, errors);
}

fn warnings(part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    if old.is_none() {
        pod_warnings::maker_name(object, warnings);
    }
    if pod_warnings::is_due(part, object, old) {
        rules::warn_of_spec(object.at("spec"), &Path::root("spec"), warnings);
    }
}
