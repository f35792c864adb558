//! What a delete does to an object, pure: grace, finalizers, propagation (`rest.BeforeDelete`, `registry/generic/registry/store.go`).

use api::pod::is_terminal_phase;
use jiff::{SignedDuration, Timestamp};
use schema::{Dependents, Kind};
use serde_json::{Value, json};

use super::DeleteOptions;
use crate::objects::meta;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a delete does to an object as it is.
#[derive(Debug)]
pub(super) enum Step {
    Remove,
    Update(Box<Value>),
    /// It is being deleted already, and this request does not hasten it.
    Wait,
}

/// `now` is when the delete was asked for.
pub(super) fn decide(kind: &Kind, object: &Value, options: &DeleteOptions, now: Timestamp) -> Step {
    let mut new = object.clone();
    let finalizers = finalizers(kind, object, options);
    let held = !finalizers.is_empty();
    if is_namespace(kind) {
        match (meta::is_deleting(object), has_namespace_finalizers(object)) {
            (false, _) => return Step::Update(Box::new(terminating_namespace(new, finalizers, now))),
            // Its content goes first.
            (true, true) => return Step::Wait,
            (true, false) => {}
        }
    }
    if is_definition(kind) && !meta::is_deleting(object) {
        return Step::Update(Box::new(terminating(new, finalizers, now)));
    }
    match grace(kind, object, options, now) {
        Grace::Pending => return Step::Wait,
        Grace::None | Grace::Until { seconds: 0, .. } if !held => return Step::Remove,
        Grace::None => {
            let at = deleted_at(object).map_or(now, |before| before.min(now));
            mark(&mut new, at, 0);
        }
        Grace::Until { at, seconds } => mark(&mut new, at, seconds),
    }
    meta::clear(&mut new, &["finalizers"]);
    if held {
        meta::set(&mut new, "finalizers", finalizers);
    }
    if new == *object { Step::Wait } else { Step::Update(Box::new(new)) }
}

/// `deletionFinalizersForGarbageCollection`: the finalizers that the object has from now on.
fn finalizers(kind: &Kind, object: &Value, options: &DeleteOptions) -> Vec<String> {
    let has_policy = meta::finalizers(object).iter().any(|one| [ORPHAN, FOREGROUND].contains(one));
    let policy = match (options.orphan_dependents, options.propagation_policy.as_deref()) {
        _ if kind.dependents == Dependents::None => "Background",
        (Some(true), _) => "Orphan",
        (Some(false), _) => "Background",
        (None, Some(policy)) => policy,
        (None, None) if kind.dependents == Dependents::Orphaned && !has_policy => "Orphan",
        (None, None) => "",
    };
    let (add, drop): (Option<&str>, &[&str]) = match policy {
        "Orphan" => (Some(ORPHAN), &[FOREGROUND]),
        "Foreground" => (Some(FOREGROUND), &[ORPHAN]),
        "Background" => (None, &[ORPHAN, FOREGROUND]),
        _ => (None, &[]),
    };
    let mut list: Vec<String> =
        meta::finalizers(object).into_iter().filter(|f| !drop.contains(f)).map(str::to_owned).collect();
    if let Some(add) = add.filter(|add| !list.iter().any(|f| f == add)) {
        list.push(add.to_owned());
    }
    list
}

/// Sets when the object is to be gone.
fn mark(object: &mut Value, at: Timestamp, seconds: i64) {
    let is_first = !meta::is_deleting(object);
    meta::edit(object, |metadata| {
        metadata.insert("deletionTimestamp".into(), meta::time(at));
        metadata.insert("deletionGracePeriodSeconds".into(), seconds.into());
        if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|_| is_first) {
            metadata.insert("generation".into(), (generation + 1).into());
        }
    });
}

fn deleted_at(object: &Value) -> Option<Timestamp> {
    meta::text(object, "deletionTimestamp").parse().ok()
}

enum Grace {
    /// The kind knows no grace, or it is over.
    None,
    /// When the object is to be gone, and how long that is from the first request on.
    Until { at: Timestamp, seconds: i64 },
    /// A deletion with as much grace, or less, is under way.
    Pending,
}

/// Only pods are deleted with grace (`pkg/registry/core/pod.CheckGracefulDelete`).
fn grace(kind: &Kind, object: &Value, options: &DeleteOptions, now: Timestamp) -> Grace {
    if !kind.group.is_empty() || kind.plural != "pods" {
        return Grace::None;
    }
    // What is less than nothing is a second.
    let counted = |seconds: i64| if seconds < 0 { 1 } else { seconds };
    let wanted = options.grace_period_seconds.map(counted);
    if let Some(at) = deleted_at(object) {
        return match (wanted, meta::integer(object, "deletionGracePeriodSeconds").map(counted)) {
            (_, None | Some(0)) => Grace::None,
            (Some(wanted), Some(granted)) if wanted < granted => shortened(after(at, -granted), wanted, now),
            _ => Grace::Pending,
        };
    }
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if text("/spec/nodeName").is_empty() || is_terminal_phase(Some(text("/status/phase"))) {
        return Grace::Until { at: now, seconds: 0 };
    }
    let own = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).map(counted);
    let seconds = wanted.or(own).unwrap_or(0);
    Grace::Until { at: after(now, seconds), seconds }
}

/// A shorter grace counts from the first request. Where all of it is over, the node still has to be told: it has a second.
fn shortened(begun: Timestamp, wanted: i64, now: Timestamp) -> Grace {
    match after(begun, wanted) {
        at if at < now => Grace::Until { at: now, seconds: wanted.min(1) },
        at => Grace::Until { at, seconds: wanted },
    }
}

fn after(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(if seconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

pub(in crate::objects) fn has_namespace_finalizers(namespace: &Value) -> bool {
    namespace.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

pub(in crate::objects) fn is_namespace(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "namespaces"
}

fn is_definition(kind: &Kind) -> bool {
    (kind.group, kind.plural) == ("apiextensions.k8s.io", "customresourcedefinitions")
}

/// A CustomResourceDefinition stays until its resources are gone
/// (`apiextensions-apiserver/pkg/registry/customresourcedefinition/etcd.go`).
fn terminating(mut definition: Value, mut finalizers: Vec<String>, now: Timestamp) -> Value {
    const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
    if !finalizers.iter().any(|one| one == CLEANUP) {
        finalizers.push(CLEANUP.to_owned());
    }
    meta::set(&mut definition, "finalizers", finalizers);
    mark(&mut definition, now, 0);
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    let condition = json!({
        "type": "Terminating", "status": "True", "reason": "InstanceDeletionPending", "message": message,
        "lastTransitionTime": meta::time(now),
    });
    match definition["status"]["conditions"].as_array_mut() {
        Some(list) => {
            list.retain(|one| one["type"] != "Terminating");
            list.push(condition);
        }
        None => definition["status"]["conditions"] = json!([condition]),
    }
    definition
}

/// A namespace stays until its content is gone (`pkg/registry/core/namespace/storage`).
fn terminating_namespace(mut namespace: Value, finalizers: Vec<String>, now: Timestamp) -> Value {
    meta::set(&mut namespace, "deletionTimestamp", meta::time(now));
    meta::clear(&mut namespace, &["finalizers"]);
    if !finalizers.is_empty() {
        meta::set(&mut namespace, "finalizers", finalizers);
    }
    namespace["status"]["phase"] = "Terminating".into();
    namespace
}

#[cfg(test)]
mod tests;
