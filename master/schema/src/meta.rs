//! `metadata`, labels and label selectors: upstream's `ValidateObjectMeta` and its neighbours.

use serde_json::Value;

use crate::errors::{Errors, Path, quote};
use crate::kind::Kind;
use crate::names::{self, check, label_value, qualified_name};
use crate::value::{Fields, same};

/// Annotations of one object together, keys included (`TotalAnnotationSizeLimitB`).
const ANNOTATIONS: usize = 256 * 1024;
pub(crate) const IMMUTABLE: &str = "field is immutable";
const METADATA: Path<'static> = Path::root("metadata");

/// A new object's metadata.
pub(crate) fn create(kind: &Kind, object: &Value, errors: &mut Errors) {
    let meta = object.at("metadata");
    let generate = meta.text("generateName");
    if !generate.is_empty() {
        for text in check(kind.names, generate, true) {
            errors.invalid(&METADATA.child("generateName"), generate, &text);
        }
    }
    let name = meta.text("name");
    if name.is_empty() {
        errors.required(&METADATA.child("name"), "name or generateName is required");
    } else {
        for text in check(kind.names, name, false) {
            errors.invalid(&METADATA.child("name"), name, &text);
        }
    }
    namespace(kind, meta.text("namespace"), errors);
    if let Some(generation) = meta.int("generation").filter(|g| *g < 0) {
        errors.invalid(&METADATA.child("generation"), generation, "must be greater than or equal to 0");
    }
    labels(meta.at("labels"), &METADATA.child("labels"), errors);
    annotations(meta.at("annotations"), &METADATA.child("annotations"), errors);
    owners(meta, errors);
    finalizers(meta, errors);
    managed_fields(meta, errors);
}

fn namespace(kind: &Kind, namespace: &str, errors: &mut Errors) {
    let path = METADATA.child("namespace");
    match (kind.namespaced, namespace.is_empty()) {
        (true, true) => errors.required(&path, ""),
        (true, false) => {
            names::dns_label(namespace).iter().for_each(|text| errors.invalid(&path, namespace, text));
        }
        (false, true) => {}
        (false, false) => errors.forbidden(&path, "not allowed on this type"),
    }
}

/// What a change of metadata may not do.
pub(crate) fn update(kind: &Kind, object: &Value, old: &Value, errors: &mut Errors) {
    let (meta, before) = (object.at("metadata"), old.at("metadata"));
    if before.has("deletionTimestamp") {
        no_new_finalizers(meta, before, errors);
    }
    if !kind.unconditional_update && meta.text("resourceVersion").is_empty() {
        errors.invalid(&METADATA.child("resourceVersion"), "", "must be specified for an update");
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        immutable(meta.at(field), before.at(field), &METADATA.child(field), errors);
    }
    labels(meta.at("labels"), &METADATA.child("labels"), errors);
    annotations(meta.at("annotations"), &METADATA.child("annotations"), errors);
    owners(meta, errors);
    managed_fields(meta, errors);
}

/// Upstream's `ValidateImmutableField`.
pub(crate) fn immutable(value: &Value, old: &Value, path: &Path, errors: &mut Errors) {
    if !same(value, old) {
        errors.invalid(path, value.clone(), IMMUTABLE);
    }
}

fn no_new_finalizers(meta: &Value, before: &Value, errors: &mut Errors) {
    let old = before.list("finalizers");
    let mut extra: Vec<&str> =
        meta.list("finalizers").iter().filter(|f| !old.contains(f)).filter_map(Value::as_str).collect();
    if extra.is_empty() {
        return;
    }
    extra.sort_unstable();
    let quoted: Vec<String> = extra.iter().map(|f| quote(f)).collect();
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        quoted.join(", ")
    );
    errors.forbidden(&METADATA.child("finalizers"), &detail);
}

/// A map of labels.
pub(crate) fn labels(labels: &Value, path: &Path, errors: &mut Errors) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        label_name(key, path, errors);
        let value = value.as_str().unwrap_or_default();
        label_value(value).iter().for_each(|text| errors.invalid(path, value, text));
    }
}

/// The key of a label.
pub(crate) fn label_name(key: &str, path: &Path, errors: &mut Errors) {
    qualified_name(key).iter().for_each(|text| errors.invalid(path, key, text));
}

/// One of `metav1.Condition`.
pub(crate) fn condition(condition: &Value, path: &Path, errors: &mut Errors) {
    const LONGEST_REASON: usize = 1024;
    const LONGEST_MESSAGE: usize = 32 * 1024;
    label_name(condition.text("type"), &path.child("type"), errors);
    let status = condition.text("status");
    if !matches!(status, "True" | "False" | "Unknown") {
        errors.not_supported(&path.child("status"), status, &["False", "True", "Unknown"]);
    }
    if let Some(generation) = condition.int("observedGeneration").filter(|generation| *generation < 0) {
        let path = path.child("observedGeneration");
        errors.invalid(&path, generation, "must be greater than or equal to zero");
    }
    if condition.text("lastTransitionTime").is_empty() {
        errors.required(&path.child("lastTransitionTime"), "");
    }
    let (reason, path_of_reason) = (condition.text("reason"), path.child("reason"));
    if reason.is_empty() {
        errors.required(&path_of_reason, "");
    } else {
        names::condition_reason(reason).iter().for_each(|text| errors.invalid(&path_of_reason, reason, text));
        if reason.len() > LONGEST_REASON {
            errors.too_long(&path_of_reason, LONGEST_REASON);
        }
    }
    if condition.text("message").len() > LONGEST_MESSAGE {
        errors.too_long(&path.child("message"), LONGEST_MESSAGE);
    }
}

/// A map of annotations.
pub(crate) fn annotations(annotations: &Value, path: &Path, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        qualified_name(&key.to_lowercase()).iter().for_each(|text| errors.invalid(path, key.as_str(), text));
    }
    if size > ANNOTATIONS {
        errors.too_long(path, ANNOTATIONS);
    }
}

fn owners(meta: &Value, errors: &mut Errors) {
    let path = METADATA.child("ownerReferences");
    let mut controller: Option<String> = None;
    for owner in meta.list("ownerReferences") {
        let version = owner.text("apiVersion").rsplit('/').next().unwrap_or_default();
        if version.is_empty() {
            errors.invalid(&path.child("apiVersion"), owner.text("apiVersion"), "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if owner.text(field).is_empty() {
                errors.invalid(&path.child(field), "", "must not be empty");
            }
        }
        if owner.text("kind") == "Event" && owner.text("apiVersion") == "v1" {
            errors.invalid(&path, owner.clone(), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.flag("controller") {
            let this = format!("{}/{}", owner.text("kind"), owner.text("name"));
            match &controller {
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} \
                         and {this}"
                    );
                    errors.invalid(&path, meta.at("ownerReferences").clone(), &detail);
                }
                None => controller = Some(this),
            }
        }
    }
}

fn finalizers(meta: &Value, errors: &mut Errors) {
    let path = METADATA.child("finalizers");
    let list: Vec<&str> = meta.list("finalizers").iter().filter_map(Value::as_str).collect();
    for name in &list {
        qualified_name(name).iter().for_each(|text| errors.invalid(&path, *name, text));
    }
    if list.contains(&"orphan") && list.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(&path, meta.at("finalizers").clone(), detail);
    }
}

fn managed_fields(meta: &Value, errors: &mut Errors) {
    let path = METADATA.child("managedFields");
    for (index, entry) in meta.list("managedFields").iter().enumerate() {
        let path = path.index(index);
        if !matches!(entry.text("operation"), "Apply" | "Update") {
            errors.invalid(&path.child("operation"), entry.text("operation"), "must be `Apply` or `Update`");
        }
        if !matches!(entry.text("fieldsType"), "" | "FieldsV1") {
            errors.invalid(&path.child("fieldsType"), entry.text("fieldsType"), "must be `FieldsV1`");
        }
        if entry.text("manager").len() > 128 {
            errors.too_long(&path.child("manager"), 128);
        }
    }
}

/// A `LabelSelector`.
pub(crate) fn label_selector(selector: &Value, path: &Path, errors: &mut Errors) {
    labels(selector.at("matchLabels"), &path.child("matchLabels"), errors);
    let expressions = path.child("matchExpressions");
    for (index, requirement) in selector.list("matchExpressions").iter().enumerate() {
        let path = expressions.index(index);
        let values = requirement.list("values");
        match requirement.text("operator") {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(&path.child("values"), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        label_name(requirement.text("key"), &path.child("key"), errors);
        let path = path.child("values");
        for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
            label_value(value).iter().for_each(|text| errors.invalid(&path.index(index), value, text));
        }
    }
}

/// Whether a `LabelSelector` selects nothing in particular.
pub(crate) fn is_empty_selector(selector: &Value) -> bool {
    selector.list("matchExpressions").is_empty() && selector.entries("matchLabels").next().is_none()
}

/// Whether a `LabelSelector` that may be absent matches labels: none matches nothing, the empty one everything.
pub fn selects_if_any(selector: &Value, labels: &Value) -> bool {
    !selector.is_null() && selects(selector, labels)
}

/// Whether a valid `LabelSelector` matches labels.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    let plain = selector.entries("matchLabels").all(|(key, value)| labels.at(key) == value);
    plain
        && selector.list("matchExpressions").iter().all(|requirement| {
            let value = labels.get(requirement.text("key"));
            let listed = value.is_some_and(|v| requirement.list("values").contains(v));
            match requirement.text("operator") {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
