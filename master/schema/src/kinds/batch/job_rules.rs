//! Whether a Job can be; upstream's `pkg/apis/batch/validation`.

use serde_json::{Value, json};

use super::job::{NAME_LABELS, UID_LABELS};
use super::job_policies;
use crate::errors::{Errors, Path};
use crate::meta;
use crate::names::{dns_label, dns_subdomain};
use crate::pod::handlers::not_negative;
use crate::pod::{validate, warnings as pod_warnings};
use crate::value::{Fields, put};
use crate::warnings::Warnings;

/// Of jobs with indexes.
const MOST_PARALLEL: i64 = 100_000;
const MOST_FAILED: i64 = 100_000;
/// Beyond so many completions the limits per index are lower.
const MANY_COMPLETIONS: i64 = 100_000;
const MOST_PARALLEL_OF_MANY: i64 = 10_000;
const MOST_FAILED_OF_MANY: i64 = 10_000;
const LONGEST_MANAGED_BY: usize = 63;
const SPEC: Path<'static> = Path::root("spec");

pub(super) fn create(object: &Value, errors: &mut Errors) {
    let name = object.at("metadata").text("name");
    generated_selector(object, errors);
    with_selector(object.at("spec"), errors);
    let completions = object.at("spec").int("completions").unwrap_or(0);
    if is_indexed(object.at("spec")) && completions > 0 {
        let longest = format!("{name}-{}", completions - 1);
        if !dns_label(&longest).is_empty() {
            let path = Path::root("metadata");
            let detail = format!("will not able to create pod with invalid DNS label: {longest}");
            errors.invalid(&path.child("name"), name, &detail);
        }
    }
}

pub(super) fn is_indexed(spec: &Value) -> bool {
    spec.text("completionMode") == "Indexed"
}

fn generated_selector(object: &Value, errors: &mut Errors) {
    let (meta, spec) = (object.at("metadata"), object.at("spec"));
    if spec.flag("manualSelector") || spec.at("selector").is_null() {
        return;
    }
    let (uid, name) = (meta.text("uid"), meta.text("name"));
    if uid.is_empty() {
        let path = Path::root("metadata");
        errors.required(&path.child("uid"), "");
    }
    let path = SPEC.child("template");
    let path = path.child("metadata");
    let path = path.child("labels");
    let labels = spec.at("template").at("metadata").at("labels");
    let mut expected = json!({});
    for (keys, value) in [(UID_LABELS, uid), (NAME_LABELS, name)] {
        for key in keys {
            has_label(labels, key, value, &path, errors);
            put(&mut expected, key, value.into());
        }
    }
    if !meta::selects(spec.at("selector"), &expected) {
        errors.invalid(&SPEC.child("selector"), spec.at("selector").clone(), "`selector` not auto-generated");
    }
}

/// Upstream's `ValidateHasLabel`.
fn has_label(labels: &Value, key: &str, expected: &str, path: &Path, errors: &mut Errors) {
    let detail = format!("must be '{expected}'");
    match labels.at(key).as_str() {
        None => errors.required(&path.key(key), &detail),
        Some(actual) if actual != expected => errors.invalid(&path.key(key), labels.clone(), &detail),
        Some(_) => {}
    }
}

fn with_selector(spec: &Value, errors: &mut Errors) {
    job_spec(spec, &SPEC, errors);
    let selector = spec.at("selector");
    if selector.is_null() {
        errors.required(&SPEC.child("selector"), "");
    } else {
        meta::label_selector(selector, &SPEC.child("selector"), errors);
    }
    let labels = spec.at("template").at("metadata").at("labels");
    let matches = !selector.is_null() && (meta::is_empty_selector(selector) || meta::selects(selector, labels));
    if !matches {
        let path = SPEC.child("template");
        let path = path.child("metadata");
        errors.invalid(&path.child("labels"), labels.clone(), "`selector` does not match template `labels`");
    }
}

/// A job, or the template of one.
pub(super) fn job_spec(spec: &Value, path: &Path, errors: &mut Errors) {
    const COUNTS: [&str; 7] = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    COUNTS.iter().for_each(|field| not_negative(spec, field, path, errors));
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    managed_by(spec, &path.child("managedBy"), errors);
    let mode = spec.text("completionMode");
    if !matches!(mode, "" | "NonIndexed" | "Indexed") {
        errors.not_supported(&path.child("completionMode"), mode, &["NonIndexed", "Indexed"]);
    }
    if is_indexed(spec) {
        indexed(spec, path, errors);
    } else if matches!(mode, "" | "NonIndexed") {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"].into_iter().filter(|field| spec.has(field)) {
            errors.invalid(&path.child(field), spec.at(field).clone(), "requires indexed completion mode");
        }
    }
    job_policies::all(spec, path, errors);
    let at = path.child("template");
    validate::template(spec.at("template"), &at, errors);
    restart_policy(spec, &at, errors);
}

fn managed_by(spec: &Value, path: &Path, errors: &mut Errors) {
    let Some(name) = spec.at("managedBy").as_str() else { return };
    match name.split_once('/') {
        Some((domain, rest)) if !rest.is_empty() => {
            dns_subdomain(domain).iter().for_each(|text| errors.invalid(path, domain, text));
        }
        _ => errors.invalid(path, name, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    if name.len() > LONGEST_MANAGED_BY {
        errors.too_long(path, LONGEST_MANAGED_BY);
    }
}

fn indexed(spec: &Value, path: &Path, errors: &mut Errors) {
    let (completions, parallelism) = (spec.int("completions"), spec.int("parallelism"));
    let failed = spec.int("maxFailedIndexes");
    if completions.is_none() {
        errors.required(&path.child("completions"), "when completion mode is Indexed");
    }
    let at_most = |(field, value): (&str, Option<i64>), most: i64, when: &str, errors: &mut Errors| {
        if let Some(value) = value.filter(|value| *value > most) {
            let detail = format!("must be less than or equal to {most}{when}");
            errors.invalid(&path.child(field), value, &detail);
        }
    };
    at_most(("parallelism", parallelism), MOST_PARALLEL, " when completion mode is Indexed", errors);
    if let (Some(failed), Some(completions)) = (failed, completions)
        && failed > completions
    {
        errors.invalid(&path.child("maxFailedIndexes"), failed, "must be less than or equal to completions");
    }
    at_most(("maxFailedIndexes", failed), MOST_FAILED, "", errors);
    if completions.is_some_and(|completions| completions > MANY_COMPLETIONS) && spec.has("backoffLimitPerIndex") {
        if failed.is_none() {
            let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
            errors.required(&path.child("maxFailedIndexes"), &detail);
        }
        let when = format!(" when completions are above {MANY_COMPLETIONS} and used with backoff limit per index");
        at_most(("parallelism", parallelism), MOST_PARALLEL_OF_MANY, &when, errors);
        at_most(("maxFailedIndexes", failed), MOST_FAILED_OF_MANY, &when, errors);
    }
}

fn restart_policy(spec: &Value, template: &Path, errors: &mut Errors) {
    let path = template.child("spec");
    let path = path.child("restartPolicy");
    match spec.at("template").at("spec").text("restartPolicy") {
        "" | "Always" => errors.required(&path, "valid values: \"OnFailure\", \"Never\""),
        "Never" => {}
        "OnFailure" if spec.has("podFailurePolicy") => {
            errors.invalid(&path, "OnFailure", "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" => {}
        other => errors.not_supported(&path, other, &["OnFailure", "Never"]),
    }
}

pub(super) fn update(object: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before) = (object.at("spec"), old.at("spec"));
    with_selector(spec, errors);
    completions(spec, before, errors);
    meta::immutable(spec.at("selector"), before.at("selector"), &SPEC.child("selector"), errors);
    template(object, old, errors);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        meta::immutable(spec.at(field), before.at(field), &SPEC.child(field), errors);
    }
}

fn completions(spec: &Value, before: &Value, errors: &mut Errors) {
    let path = SPEC.child("completions");
    let (new, old) = (spec.at("completions"), before.at("completions"));
    if !is_indexed(spec) {
        return meta::immutable(new, old, &path, errors);
    }
    if new != old && !new.is_null() && new != spec.at("parallelism") {
        errors.invalid(&path, new.clone(), "can only be modified in tandem with spec.parallelism");
    }
}

/// While a job is suspended its pods may be given other places and resources.
fn template(object: &Value, old: &Value, errors: &mut Errors) {
    let new = object.at("spec").at("template");
    let mut before = old.at("spec").at("template").clone();
    if old.at("spec").flag("suspend") && old.at("status").int("active").unwrap_or(0) == 0 {
        if let Some(spec) = before.get_mut("spec") {
            for field in ["nodeSelector", "tolerations", "schedulingGates", "affinity"] {
                put(spec, field, new.at("spec").at(field).clone());
            }
            for list in ["containers", "initContainers"] {
                take_resources(spec, new.at("spec"), list);
            }
        }
        if let Some(meta) = before.get_mut("metadata") {
            for field in ["labels", "annotations"] {
                put(meta, field, new.at("metadata").at(field).clone());
            }
        }
    }
    meta::immutable(new, &before, &SPEC.child("template"), errors);
}

fn take_resources(spec: &mut Value, new: &Value, list: &str) {
    let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
    for (container, wanted) in containers.zip(new.list(list)) {
        if container.text("name") == wanted.text("name") {
            put(container, "resources", wanted.at("resources").clone());
        }
    }
}

/// Of a job's spec at `path` (upstream's `WarningsForJobSpec`).
pub(super) fn warn_of_spec(spec: &Value, path: &Path, warnings: &mut Warnings) {
    let number = |field| spec.int(field).unwrap_or(0);
    let is_large = number("completions") > MANY_COMPLETIONS && number("parallelism") > MOST_PARALLEL_OF_MANY;
    if is_indexed(spec) && is_large {
        warnings.of(
            path,
            "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes \
             might not be able to track completedIndexes when a big number of indexes fail",
        );
    }
    pod_warnings::template(spec.at("template"), &path.child("template"), warnings);
}
