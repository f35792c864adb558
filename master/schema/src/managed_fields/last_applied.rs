//! From client-side apply to server-side apply: what `kubectl apply` left in its annotation.

use serde_json::Value;

use super::compare::{compare, fields};
use super::{Apply, Conflict, Manager};
use crate::value::Fields;

/// The annotation counts only for kubectl's own manager; whoever does not want that applies under another name.
pub(super) const MANAGER: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What all annotations of an object may take together.
const ANNOTATIONS: usize = 256 * 1024;

/// The conflicts that client-side apply does not explain; `None` when it explains all of them. A field that was applied
/// client-side, and is as it was applied, is no conflict with whoever applied it.
pub(super) fn foreign(apply: &Apply<'_>, found: Vec<Conflict>) -> Option<Vec<Conflict>> {
    let annotation = apply.live.at("metadata").at("annotations").text(ANNOTATION);
    let last: Value = serde_json::from_str(annotation).unwrap_or_default();
    if last.text("apiVersion") != apply.kind.api_version() {
        return Some(found);
    }
    let difference = compare(apply.shape, &last, apply.live);
    let own = fields(apply.shape, &last).difference(&difference.changed).difference(&difference.removed).paths();
    let rest: Vec<Conflict> = found.into_iter().filter(|conflict| !own.contains(&conflict.field)).collect();
    (!rest.is_empty()).then_some(rest)
}

/// Keeps the annotation of an object that has one true, so that client-side apply can go on with it.
pub(super) fn keep(config: &Value, by: &Manager, object: &mut Value) {
    let is_set = |object: &Value| !object.at("metadata").at("annotations").text(ANNOTATION).is_empty();
    if by.name != MANAGER || !is_set(object) {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    let text = format!("{config}\n");
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    annotations.insert(ANNOTATION.into(), text.into());
    let size: usize = annotations.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
    if size > ANNOTATIONS {
        annotations.insert(ANNOTATION.into(), "".into());
    }
}
