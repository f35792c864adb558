//! Requests and limits.

use api::quantity::Quantity;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::names::qualified_name;
use crate::quantity::is_integer;
use crate::value::Fields;
use crate::warnings::Warnings;

const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// The resources of a container.
pub(crate) fn container(resources: &Value, path: &Path, errors: &mut Errors) {
    check(resources, path, container_name, errors);
}

/// The resources of the pod as a whole (KEP-2837).
pub(crate) fn pod_level(spec: &Value, path: &Path, errors: &mut Errors) {
    check(spec.at("resources"), path, pod_name, errors);
}

/// What the sandbox itself uses.
pub(crate) fn overhead(overhead: &Value, path: &Path, errors: &mut Errors) {
    for (name, amount) in overhead.as_object().into_iter().flatten() {
        let path = path.key(name);
        container_name(name, &path, errors);
        quantity(name, amount, &path, errors);
    }
}

/// A list of resources of a node or the like.
pub(crate) fn amounts(object: &Value, field: &str, path: &Path, errors: &mut Errors) {
    let path = path.child(field);
    for (name, amount) in object.entries(field) {
        quantity(name, amount, &path.key(name), errors);
    }
}

fn check(resources: &Value, path: &Path, name_rule: fn(&str, &Path, &mut Errors), errors: &mut Errors) {
    let limits = path.child("limits");
    for (name, amount) in resources.entries("limits") {
        let path = limits.key(name);
        name_rule(name, &path, errors);
        quantity(name, amount, &path, errors);
    }
    let requests = path.child("requests");
    for (name, amount) in resources.entries("requests") {
        let path = requests.key(name);
        name_rule(name, &path, errors);
        quantity(name, amount, &path, errors);
        within_limit(name, amount, resources.at("limits").at(name), (&requests, &limits), errors);
    }
    let names: Vec<&str> =
        ["limits", "requests"].iter().flat_map(|list| resources.entries(list)).map(|(name, _)| name.as_str()).collect();
    let huge = names.iter().any(|name| name.starts_with("hugepages-"));
    if huge && !names.iter().any(|name| matches!(*name, "cpu" | "memory")) {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

fn within_limit(name: &str, request: &Value, limit: &Value, (requests, limits): (&Path, &Path), errors: &mut Errors) {
    let overcommit = STANDARD.contains(&name) || name.starts_with("kubernetes.io/");
    let Some(limit) = limit.as_str() else {
        if !overcommit {
            errors.required(limits, "Limit must be set for non overcommitable resources");
        }
        return;
    };
    let text = request.as_str().unwrap_or_default();
    let (Ok(most), Ok(asked)) = (limit.parse::<Quantity>(), text.parse::<Quantity>()) else { return };
    let order = asked.cmp(&most);
    if order.is_ne() && !overcommit {
        errors.invalid(requests, text, &format!("must be equal to {name} limit of {limit}"));
    } else if order.is_gt() {
        errors.invalid(requests, text, &format!("must be less than or equal to {name} limit of {limit}"));
    }
}

fn container_name(name: &str, path: &Path, errors: &mut Errors) {
    let wrong = qualified_name(name);
    wrong.iter().for_each(|text| errors.invalid(path, name, text));
    if !wrong.is_empty() {
        return;
    }
    if name.contains('/') {
        if !is_native(name) && !is_extended(name) {
            errors.invalid(path, name, "doesn't follow extended resource name standard");
        }
        return;
    }
    let standard = STANDARD.contains(&name) || name.starts_with("hugepages-");
    if !standard {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
        errors.invalid(path, name, "must be a standard resource for containers");
    }
}

fn pod_name(name: &str, path: &Path, errors: &mut Errors) {
    if !matches!(name, "cpu" | "memory") && !name.starts_with("hugepages-") {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

pub(crate) fn is_native(name: &str) -> bool {
    name.split('/').next().is_some_and(|domain| domain == "kubernetes.io" || domain.ends_with(".kubernetes.io"))
}

/// A resource that is not of Kubernetes' own.
pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && qualified_name(&format!("requests.{name}")).is_empty()
}

fn quantity(name: &str, amount: &Value, path: &Path, errors: &mut Errors) {
    let text = amount.as_str().unwrap_or_default();
    let Ok(amount) = text.parse::<Quantity>() else { return };
    if amount.is_negative() {
        errors.invalid(path, text, "must be greater than or equal to 0");
    }
    // Extended resources, pods and the like come whole.
    let whole = (name.contains('/') && !is_native(name)) || name == "pods";
    if whole && !is_integer(&amount) {
        errors.invalid(path, text, "must be an integer");
    }
}

/// Bytes in parts, which nothing can have: an amount by name of a resource list at `path`.
pub(crate) fn fractional(amounts: &Value, name: &str, path: &Path, warnings: &mut Warnings) {
    let Some(text) = amounts.at(name).as_str() else { return };
    // Only such spellings can be no whole number.
    if !text.contains(['m', 'u', 'n', '.', 'e', 'E']) {
        return;
    }
    if text.parse::<Quantity>().is_ok_and(|amount| !is_integer(&amount)) {
        warnings.of(&path.key(name), format_args!("fractional byte value {text:?} is invalid, must be an integer"));
    }
}
