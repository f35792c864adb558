//! Metrics of a HorizontalPodAutoscaler: what may be asked for, and how tables show it.

use std::cmp::Ordering;

use api::quantity::Quantity;
use serde_json::Value;

use super::horizontal_pod_autoscaler::reference;
use crate::errors::{Errors, Path};
use crate::names::{dns_label, path_segment};
use crate::value::Fields;

/// Types with the fields that say more of them, in the order of validation.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
/// How many metrics a table shows.
const SHOWN: usize = 2;

pub(super) fn validate(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let metrics = spec.list("metrics");
    for (index, metric) in metrics.iter().enumerate() {
        one(metric, &path.index(index), errors);
    }
    let counts_from_zero = |metric: &Value| matches!(metric.text("type"), "Object" | "External");
    if spec.int("minReplicas") == Some(0) && !metrics.iter().any(counts_from_zero) {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(path, detail);
    }
}

fn one(metric: &Value, path: &Path<'_>, errors: &mut Errors) {
    let said = metric.text("type");
    if said.is_empty() {
        errors.required(&path.child("type"), "must specify a metric source type");
    }
    if !TYPES.contains(&said) {
        errors.not_supported(&path.child("type"), said, &TYPES);
    }
    let present: Vec<&str> = SOURCES.iter().map(|(_, field)| *field).filter(|field| metric.has(field)).collect();
    if let Some(first) = present.first() {
        source(first, metric.at(first), &path.child(first), errors);
    }
    let wanted = SOURCES.iter().find(|(kind, _)| *kind == said).map(|(_, field)| *field);
    match wanted {
        Some(field) if !metric.has(field) => {
            errors.required(&path.child(field), "must populate information for the given metric source");
        }
        Some(_) => {}
        None => errors.not_supported(&path.child("type"), said, &TYPES),
    }
    if present.len() != 1 {
        for other in present.into_iter().filter(|field| Some(*field) != wanted) {
            errors.forbidden(&path.child(other), "must populate the given metric source only");
        }
    }
}

fn source(field: &str, source: &Value, path: &Path<'_>, errors: &mut Errors) {
    match field {
        "object" => {
            reference(source.at("describedObject"), Some(false), &path.child("describedObject"), errors);
            identifier(source.at("metric"), &path.child("metric"), errors);
        }
        "external" | "pods" => identifier(source.at("metric"), &path.child("metric"), errors),
        _ => resource(field, source, path, errors),
    }
    let (target, place) = (source.at("target"), path.child("target"));
    judge_target(target, &place, errors);
    let (value, average) = (target.has("value"), target.has("averageValue"));
    let at_average = place.child("averageValue");
    match field {
        "object" if !value && !average => {
            errors.required(&at_average, "must set either a target value or averageValue");
        }
        "external" if !value && !average => {
            errors.required(&at_average, "must set either a target value for metric or a per-pod target");
        }
        "external" if value && average => {
            let detail = "may not set both a target value for metric and a per-pod target";
            errors.forbidden(&place.child("value"), detail);
        }
        "pods" if !average => errors.required(&at_average, "must specify a positive target averageValue"),
        "resource" | "containerResource" => match (target.has("averageUtilization"), average) {
            (false, false) => {
                let detail = "must set either a target raw value or a target utilization";
                errors.required(&place.child("averageUtilization"), detail);
            }
            (true, true) => {
                errors.forbidden(&at_average, "may not set both a target raw value and a target utilization");
            }
            _ => {}
        },
        _ => {}
    }
}

fn resource(field: &str, source: &Value, path: &Path<'_>, errors: &mut Errors) {
    if source.text("name").is_empty() {
        errors.required(&path.child("name"), "must specify a resource name");
    }
    if field != "containerResource" {
        return;
    }
    let (container, place) = (source.text("container"), path.child("container"));
    if container.is_empty() {
        errors.required(&place, "must specify a container");
    } else {
        dns_label(container).iter().for_each(|why| errors.invalid(&place, container, why));
    }
}

fn identifier(metric: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (name, place) = (metric.text("name"), path.child("name"));
    if name.is_empty() {
        errors.required(&place, "must specify a metric name");
    }
    path_segment(name, false).iter().for_each(|why| errors.invalid(&place, name, why));
}

fn judge_target(target: &Value, path: &Path<'_>, errors: &mut Errors) {
    let said = target.text("type");
    if said.is_empty() {
        errors.required(&path.child("type"), "must specify a metric target type");
    }
    if !matches!(said, "Utilization" | "Value" | "AverageValue") {
        errors.invalid(&path.child("type"), said, "must be either Utilization, Value, or AverageValue");
    }
    for field in ["value", "averageValue"] {
        if let Some(amount) = target.at(field).as_str().filter(|amount| sign(amount) <= 0) {
            errors.invalid(&path.child(field), amount, "must be positive");
        }
    }
    if let Some(percent) = target.int("averageUtilization").filter(|percent| *percent < 1) {
        errors.invalid(&path.child("averageUtilization"), percent, "must be greater than 0");
    }
}

/// -1, 0 or 1.
pub(super) fn sign(quantity: &str) -> i8 {
    match quantity.parse::<Quantity>().map(|quantity| quantity.cmp(&Quantity::ZERO)) {
        Ok(Ordering::Less) => -1,
        Ok(Ordering::Greater) => 1,
        Ok(Ordering::Equal) | Err(_) => 0,
    }
}

/// `cpu: 12%/80%, 3/10 (avg) + 2 more...`
pub(super) fn shown(specs: &[Value], statuses: &[Value]) -> String {
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let texts: Vec<String> = specs
        .iter()
        .take(SHOWN)
        .enumerate()
        .map(|(index, spec)| shown_one(spec, statuses.get(index).unwrap_or(&Value::Null)))
        .collect();
    let all = texts.join(", ");
    match specs.len().saturating_sub(SHOWN) {
        0 => all,
        more => format!("{all} + {more} more..."),
    }
}

fn shown_one(spec: &Value, status: &Value) -> String {
    let Some((_, field)) = SOURCES.iter().find(|(kind, _)| *kind == spec.text("type")) else {
        return "<unknown type>".to_owned();
    };
    let (source, current) = (spec.at(field), status.at(field).at("current"));
    let target = source.at("target");
    let text = |holder: &Value, field: &str| holder.at(field).as_str().unwrap_or("<unknown>").to_owned();
    let percent = |holder: &Value, otherwise: &str| {
        holder.int("averageUtilization").map_or_else(|| otherwise.to_owned(), |percent| format!("{percent}%"))
    };
    let by_average = target.has("averageValue");
    match *field {
        "object" | "external" if by_average => {
            format!("{}/{} (avg)", text(current, "averageValue"), text(target, "averageValue"))
        }
        "object" | "external" => format!("{}/{}", text(current, "value"), text(target, "value")),
        "pods" => format!("{}/{}", text(current, "averageValue"), text(target, "averageValue")),
        _ if by_average => {
            format!("{}: {}/{}", source.text("name"), text(current, "averageValue"), text(target, "averageValue"))
        }
        _ => format!("{}: {}/{}", source.text("name"), percent(current, "<unknown>"), percent(target, "<auto>")),
    }
}
