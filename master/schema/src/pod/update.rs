//! What may change in a pod: upstream's pod strategies and `ValidatePodUpdate`.

use serde_json::{Value, json};

use super::{app_armor, gated, resize, validate};
use crate::errors::{Errors, Path, quote};
use crate::kind::Part;
use crate::value::{Fields, put, same};

const SPEC: Path<'static> = Path::root("spec");

/// What upstream answers to any other change.
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Takes from `old` what this part may not change.
pub(crate) fn keep(part: Part, object: &mut Value, old: &Value) {
    match part {
        Part::Status => {
            if let Some(meta) = object.get_mut("metadata") {
                put(meta, "ownerReferences", old.at("metadata").at("ownerReferences").clone());
            }
            let class = old.at("status").at("qosClass").clone();
            if let Some(status) = object.get_mut("status").filter(|_| !class.is_null()) {
                put(status, "qosClass", class);
            }
            keep_observed(object, old);
        }
        Part::Other("ephemeralcontainers") => {
            let containers = object.at("spec").at("ephemeralContainers").clone();
            replace(object, old, |spec| put(spec, "ephemeralContainers", containers));
        }
        Part::Other("resize") => resize::keep(object, old),
        Part::Main | Part::Other(_) => {}
    }
}

/// Who writes a status without saying which generation it is of, as older clients do, leaves what was said (KEP-5067).
fn keep_observed(object: &mut Value, old: &Value) {
    const FIELD: &str = "observedGeneration";
    let before = old.at("status");
    let Some(status) = object.get_mut("status") else { return };
    if status.int(FIELD).unwrap_or(0) == 0 {
        put(status, FIELD, before.at(FIELD).clone());
    }
    let mut known: Vec<&Value> = before.list("conditions").iter().collect();
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let same = known.iter().position(|one| one.text("type") == condition.text("type"));
        let generation = same.map_or(Value::Null, |at| known.remove(at).at(FIELD).clone());
        if condition.int(FIELD).unwrap_or(0) == 0 {
            put(condition, FIELD, generation);
        }
    }
}

/// Makes `object` the old pod with one change of its spec, under the new resource version.
fn replace(object: &mut Value, old: &Value, change: impl FnOnce(&mut Value)) {
    let version = object.at("metadata").at("resourceVersion").clone();
    *object = old.clone();
    if let Some(meta) = object.get_mut("metadata") {
        put(meta, "resourceVersion", version);
    }
    if let Some(spec) = object.get_mut("spec") {
        change(spec);
    }
}

pub(crate) fn pod(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    match part {
        Part::Main => main(object, old, errors),
        Part::Status => status(object, old, errors),
        Part::Other("ephemeralcontainers") => {
            validate::pod(object, errors);
            ephemeral(object, old, errors);
        }
        Part::Other("resize") => resize::validate(object, old, errors),
        Part::Other(_) => {}
    }
}

fn main(object: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before) = (object.at("spec"), old.at("spec"));
    app_armor::keep(object, old, errors);
    for list in ["containers", "initContainers"] {
        if !images(spec.list(list), before.list(list), &SPEC.child(list), errors) {
            return;
        }
    }
    if !deadline(spec, before, errors) {
        return;
    }
    tolerations(spec, before, errors);
    scheduling_gates(spec, before, errors);
    if same(spec, before) {
        return;
    }
    let mut munged = munge(spec, before);
    if !before.list("schedulingGates").is_empty() {
        gated::narrow(&mut munged, before, errors);
    }
    if !same(&munged, before) {
        let mut detail = format!("pod updates may not change fields other than {UPDATABLE}\n");
        differences(before, &munged, "", &mut detail);
        errors.forbidden(&SPEC, &detail);
    }
}

/// Whether there are as many containers as before; their images are checked.
fn images(new: &[Value], old: &[Value], path: &Path, errors: &mut Errors) -> bool {
    if new.len() != old.len() {
        errors.forbidden(path, "pod updates may not add or remove containers");
        return false;
    }
    for (index, container) in new.iter().enumerate() {
        let image = container.text("image");
        let path = path.index(index);
        if image.is_empty() {
            errors.required(&path.child("image"), "");
        }
        if image.trim() != image {
            errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
        }
    }
    true
}

fn deadline(spec: &Value, before: &Value, errors: &mut Errors) -> bool {
    let path = SPEC.child("activeDeadlineSeconds");
    match (spec.int("activeDeadlineSeconds"), before.int("activeDeadlineSeconds")) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.invalid(&path, new, &crate::names::between(0, i64::from(i32::MAX)));
            false
        }
        (Some(new), Some(old)) if old < new => {
            errors.invalid(&path, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            errors.invalid(&path, Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

/// Tolerations may be added, and live longer or shorter; none may go or change.
fn tolerations(spec: &Value, before: &Value, errors: &mut Errors) {
    let path = SPEC.child("tolerations");
    let bare = |toleration: &Value| {
        let mut toleration = toleration.clone();
        put(&mut toleration, "tolerationSeconds", Value::Null);
        toleration
    };
    let kept = before
        .list("tolerations")
        .iter()
        .all(|old| spec.list("tolerations").iter().any(|new| same(&bare(new), &bare(old))));
    if kept {
        validate::tolerations(spec, &path, errors);
    } else {
        errors.forbidden(&path, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn scheduling_gates(spec: &Value, before: &Value, errors: &mut Errors) {
    let old: Vec<&str> = before.list("schedulingGates").iter().map(|g| g.text("name")).collect();
    let path = SPEC.child("schedulingGates");
    for (index, gate) in spec.list("schedulingGates").iter().enumerate() {
        if !old.contains(&gate.text("name")) {
            errors.forbidden(&path.index(index), "only deletion is allowed, but found new scheduling gate");
        }
    }
}

/// The new spec with everything that may change set back.
fn munge(spec: &Value, before: &Value) -> Value {
    let mut munged = spec.clone();
    for list in ["containers", "initContainers"] {
        let containers = munged.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, old) in containers.zip(before.list(list)) {
            put(container, "image", old.at("image").clone());
        }
    }
    let mut set_back = vec!["activeDeadlineSeconds", "schedulingGates", "tolerations"];
    let grace = "terminationGracePeriodSeconds";
    if before.int(grace).is_some_and(|g| g < 0) && spec.int(grace) == Some(1) {
        set_back.push(grace);
    }
    for field in set_back {
        put(&mut munged, field, before.at(field).clone());
    }
    munged
}

/// The fields that differ, a line each.
pub(crate) fn differences(old: &Value, new: &Value, path: &str, out: &mut String) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let added = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(added) {
                differences(a.at(key), b.at(key), &format!("{path}.{key}"), out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (x, y)) in a.iter().zip(b).enumerate() {
                differences(x, y, &format!("{path}[{index}]"), out);
            }
        }
        _ if same(old, new) => {}
        _ => out.push_str(&format!("  spec{path}: {old} -> {new}\n")),
    }
}

fn ephemeral(object: &Value, old: &Value, errors: &mut Errors) {
    let path = SPEC.child("ephemeralContainers");
    let containers = object.at("spec").list("ephemeralContainers");
    for before in old.at("spec").list("ephemeralContainers") {
        let name = before.text("name");
        match containers.iter().find(|c| c.text("name") == name) {
            None => {
                let detail = format!("existing ephemeral containers {} may not be removed\n", quote(name));
                errors.forbidden(&path, &detail);
            }
            Some(now) if !same(now, before) => {
                let mut detail = format!("existing ephemeral containers {} may not be changed\n", quote(name));
                differences(before, now, "", &mut detail);
                errors.forbidden(&path, &detail);
            }
            Some(_) => {}
        }
    }
}

/// A pod never leaves its node, and a container that ended for good does not run again.
fn status(object: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::root("status");
    let (new, before) = (object.at("status"), old.at("status"));
    if object.at("spec").text("nodeName") != old.at("spec").text("nodeName") {
        let detail = "may not be changed directly";
        errors.forbidden(&path.child("nodeName"), detail);
    }
    let path = path.child("containerStatuses");
    for (index, was) in before.list("containerStatuses").iter().enumerate() {
        let Some(exit_code) = was.at("state").at("terminated").int("exitCode") else { continue };
        let name = was.text("name");
        let now = new.list("containerStatuses").iter().find(|c| c.text("name") == name);
        let runs_again = now.is_some_and(|c| !c.at("state").has("terminated"));
        if runs_again && !api::restart::may_run_again(old.at("spec"), name, exit_code) {
            errors.forbidden(&path.index(index).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

/// The pod that a Binding makes of a pod: bound to the node it names, with the binding's labels and annotations.
pub fn bind(pod: &mut Value, binding: &Value) {
    if let Some(spec) = pod.get_mut("spec") {
        put(spec, "nodeName", json!(binding.at("target").text("name")));
    }
    if let Some(Value::Object(meta)) = pod.get_mut("metadata") {
        for field in ["labels", "annotations"] {
            for (key, value) in binding.at("metadata").entries(field) {
                crate::value::object_in(meta, field).insert(key.clone(), value.clone());
            }
        }
    }
}
