//! `pods/{name}/resize`: what of a pod may change in place (KEP-1287; upstream's `podResizeStrategy` and
//! `ValidatePodResize`).

use serde_json::Value;

use super::{qos, validate};
use crate::errors::{Errors, Path};
use crate::value::{Fields, put, same};

const SPEC: Path<'static> = Path::root("spec");
/// How upstream prints the path of the object as a whole.
const NOWHERE: Path<'static> = Path::root("[]");
const LISTS: [&str; 2] = ["containers", "initContainers"];
/// Resources that can be resized.
const MUTABLE: [&str; 2] = ["cpu", "memory"];

/// Of a resize only resources and resize policies count. Where containers were added, removed, renamed or moved, all of
/// it stays, for validation to refuse.
pub(crate) fn keep(object: &mut Value, old: &Value) {
    let (new, before) = (object.at("spec").clone(), old.at("spec"));
    if LISTS.iter().any(|list| new.list(list).len() != before.list(list).len()) {
        return;
    }
    let version = object.at("metadata").at("resourceVersion").clone();
    let managed = object.at("metadata").at("managedFields").clone();
    *object = old.clone();
    if let Some(meta) = object.get_mut("metadata") {
        put(meta, "resourceVersion", version);
        put(meta, "managedFields", managed);
    }
    let Some(spec) = object.get_mut("spec") else { return };
    put(spec, "resources", new.at("resources").clone());
    for list in LISTS {
        let renamed = names(&new, list).ne(names(before, list));
        if renamed {
            put(spec, list, new.at(list).clone());
            continue;
        }
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, wanted) in containers.zip(new.list(list)) {
            put(container, "resources", wanted.at("resources").clone());
            put(container, "resizePolicy", wanted.at("resizePolicy").clone());
        }
    }
}

fn names<'a>(spec: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    spec.list(list).iter().map(|container| container.text("name"))
}

pub(crate) fn validate(object: &Value, old: &Value, errors: &mut Errors) {
    let mirror = "kubernetes.io/config.mirror";
    if old.at("metadata").at("annotations").has(mirror) {
        return errors.forbidden(&NOWHERE, "static pods cannot be resized");
    }
    if old.at("spec").at("os").text("name") == "windows" {
        return errors.forbidden(&NOWHERE, "windows pods cannot be resized");
    }
    let before = errors.len();
    validate::pod(object, errors);
    let (spec, old_spec) = (object.at("spec"), old.at("spec"));
    let class = old.at("status").text("qosClass");
    let class = if class.is_empty() { qos::class(old_spec) } else { class };
    if qos::class(spec) != class {
        let shown = object.at("status").at("qosClass").clone();
        errors.invalid(&SPEC, shown, "Pod QOS Class may not change as a result of resizing");
    }
    if !is_supported(old) {
        errors.forbidden(&SPEC, "Pod running on node without support for resize");
    }
    let mut masked = spec.clone();
    pod_level(&mut masked, old_spec, errors);
    if !containers_stay(spec, old_spec, errors) {
        return;
    }
    for list in ["initContainers", "containers"] {
        nothing_removed(spec, old_spec, list, errors);
    }
    containers(&mut masked, old_spec, errors);
    if errors.len() == before && !same(&masked, old_spec) {
        errors.forbidden(&SPEC, "only cpu and memory resources are mutable");
    }
}

/// A node that cannot resize reports no resources of the containers that it runs.
fn is_supported(old: &Value) -> bool {
    let statuses = old.at("status").list("containerStatuses");
    let running = statuses.iter().find(|status| status.at("state").has("running"));
    running.is_none_or(|status| status.has("resources"))
}

/// `spec.resources`; what may change of it is taken back in `masked`.
fn pod_level(masked: &mut Value, old: &Value, errors: &mut Errors) {
    let (new, before) = (masked.at("resources").clone(), old.at("resources"));
    let is_set = |resources: &Value| {
        resources.entries("requests").next().is_some() || resources.entries("limits").next().is_some()
    };
    if !is_set(&new) && !is_set(before) {
        return;
    }
    let path = SPEC.child("resources");
    if new.is_null() {
        return errors.forbidden(&path, "pod-level resources cannot be removed");
    }
    for (list, one) in [("requests", "request"), ("limits", "limit")] {
        if is_removed(&new, before, list) {
            errors.forbidden(&path.child(list), &format!("pod-level resource {one}s cannot be removed"));
        }
    }
    let mut resources = new;
    mask(&mut resources, before);
    let is_nothing = resources.as_object().is_none_or(serde_json::Map::is_empty);
    put(masked, "resources", if before.is_null() && is_nothing { Value::Null } else { resources });
    if !same(masked.at("resources"), before) {
        errors.forbidden(&SPEC, "only cpu and memory resources are mutable at pod-level");
    }
}

/// Whether the containers are the same ones, in the same order.
fn containers_stay(spec: &Value, old: &Value, errors: &mut Errors) -> bool {
    let mut stay = true;
    for list in LISTS {
        let path = SPEC.child(list);
        let (new, before) = (spec.list(list), old.list(list));
        if new.len() != before.len() {
            errors.forbidden(&path, &format!("{list} may not be added or removed on resize"));
            stay = false;
            continue;
        }
        for (index, (new, before)) in new.iter().zip(before).enumerate() {
            if new.text("name") != before.text("name") {
                let path = path.index(index);
                errors.forbidden(&path.child("name"), &format!("{list} may not be renamed or reordered on resize"));
                stay = false;
            }
        }
    }
    stay
}

fn nothing_removed(spec: &Value, old: &Value, list: &str, errors: &mut Errors) {
    let path = SPEC.child(list);
    for (index, (new, before)) in spec.list(list).iter().zip(old.list(list)).enumerate() {
        let path = path.index(index);
        let path = path.child("resources");
        for (part, one) in [("requests", "request"), ("limits", "limit")] {
            if is_removed(new.at("resources"), before.at("resources"), part) {
                errors.forbidden(&path.child(part), &format!("resource {one}s cannot be removed"));
            }
        }
    }
}

fn is_removed(new: &Value, before: &Value, list: &str) -> bool {
    before.entries(list).any(|(name, _)| !new.at(list).has(name))
}

/// Takes back what may change of containers; complains of what else did.
fn containers(masked: &mut Value, old: &Value, errors: &mut Errors) {
    for list in LISTS {
        let path = SPEC.child(list);
        let containers = masked.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (index, (container, before)) in containers.zip(old.list(list)).enumerate() {
            let is_modified = !same(container, before);
            let mut resources = container.at("resources").clone();
            mask(&mut resources, before.at("resources"));
            put(container, "resources", resources);
            let is_init = list == "initContainers";
            if !same(container, before) {
                let (path, text) = match is_init {
                    true => {
                        (path.index(index), "only cpu and memory resources for init or sidecar containers are mutable")
                    }
                    false => (SPEC, "only cpu and memory resources are mutable"),
                };
                errors.forbidden(&path, text);
            }
            let is_sidecar = container.text("restartPolicy") == "Always";
            let policies = container.list("resizePolicy").iter();
            let restarts = policies.filter(|policy| policy.text("restartPolicy") == "RestartContainer");
            for _ in restarts.filter(|_| is_init && is_modified && !is_sidecar) {
                let text = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                errors.forbidden(&path.index(index), text);
            }
        }
    }
}

/// Gives cpu and memory the amounts that they had. Lists that are left empty count as none.
fn mask(resources: &mut Value, before: &Value) {
    if resources.is_null() {
        *resources = Value::Object(serde_json::Map::new());
    }
    for list in ["requests", "limits"] {
        let mut amounts = resources.at(list).as_object().cloned().unwrap_or_default();
        for name in MUTABLE {
            match before.at(list).at(name) {
                Value::Null => drop(amounts.remove(name)),
                amount => drop(amounts.insert(name.to_owned(), amount.clone())),
            }
        }
        let empty = amounts.is_empty();
        put(resources, list, if empty { Value::Null } else { Value::Object(amounts) });
    }
}
