//! PodSecurity: pods must keep what the labels of their namespace ask for, and whoever makes them is told where they would
//! not (<https://kubernetes.io/docs/concepts/security/pod-security-admission/>).

mod checks;
mod policy;

use std::collections::{BTreeMap, BTreeSet};

use auth::FieldCause;
use serde_json::Value;

use crate::{Context, Operation, Plugin, Refusal, Request, pods, text};
use checks::Violation;
use policy::{Level, Policy};

/// Subresources of pods that change nothing of what is judged.
const UNRELATED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];
/// How many pods of a namespace are looked at when more is asked of it.
const MOST: usize = 3000;

pub struct PodSecurity;

impl Plugin for PodSecurity {
    fn validate(&self, context: &Context, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        let Some(object) = object else { return Ok(()) };
        if request.is("", "namespaces", "") {
            return labels_are_valid(request, object);
        }
        if !is_pod_to_judge(request, object) {
            return Ok(());
        }
        let rule = policy_of(context, request).enforce;
        let violations = checks::violations(object, rule);
        if violations.is_empty() {
            return Ok(());
        }
        Err(request.forbidden(Some(object), &format!("violates PodSecurity \"{rule}\": {}", in_detail(&violations))))
    }

    fn warnings(&self, context: &Context, request: &Request<'_>, object: &Value) -> Vec<String> {
        if request.is("", "namespaces", "") {
            return of_namespace(context, request, object);
        }
        let template = match template(request) {
            _ if is_pod_to_judge(request, object) => Some(object),
            Some(pointer) => object.pointer(pointer).filter(|template| !template.is_null()),
            None => None,
        };
        let Some(pod) = template else { return Vec::new() };
        let rule = policy_of(context, request).warn;
        match checks::violations(pod, rule).as_slice() {
            [] => Vec::new(),
            some => vec![format!("would violate PodSecurity \"{rule}\": {}", in_detail(some))],
        }
    }
}

fn policy_of(context: &Context, request: &Request<'_>) -> Policy {
    let namespace = context.lookup.get("", "namespaces", "", request.namespace).unwrap_or_default();
    Policy::of(&namespace).0
}

fn in_detail(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A pod that is new, or of which an image or the number of containers changes.
fn is_pod_to_judge(request: &Request<'_>, pod: &Value) -> bool {
    if (request.group, request.resource) != ("", "pods") || UNRELATED.contains(&request.subresource) {
        return false;
    }
    let images = |pod: &Value| -> BTreeMap<String, String> {
        pods::containers(pod).map(|c| (text(c, "/name").to_owned(), text(c, "/image").to_owned())).collect()
    };
    match (request.operation, request.old) {
        (Operation::Create, _) => true,
        (Operation::Update, Some(old)) => images(pod) != images(old),
        _ => false,
    }
}

/// Where the pod stands in an object of which pods are made.
fn template(request: &Request<'_>) -> Option<&'static str> {
    if !request.subresource.is_empty() || !matches!(request.operation, Operation::Create | Operation::Update) {
        return None;
    }
    match (request.group, request.resource) {
        ("", "podtemplates") => Some("/template"),
        ("", "replicationcontrollers") | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets") => {
            Some("/spec/template")
        }
        ("batch", "jobs") => Some("/spec/template"),
        ("batch", "cronjobs") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// Labels that were wrong before may stay so.
fn labels_are_valid(request: &Request<'_>, namespace: &Value) -> Result<(), Refusal> {
    let errors = Policy::of(namespace).1;
    let before = request.old.map(|old| Policy::of(old).1).unwrap_or_default();
    if errors.is_empty() || errors == before {
        return Ok(());
    }
    let causes: Vec<_> =
        errors.iter().map(|(field, message)| FieldCause { reason: "FieldValueInvalid", field, message }).collect();
    Err(Refusal::invalid("", "Namespace", request.object_name(Some(namespace)), &causes))
}

/// What there is already and would not be let in any more.
fn of_namespace(context: &Context, request: &Request<'_>, namespace: &Value) -> Vec<String> {
    let Some(old) = request.old else { return Vec::new() };
    let (new, old) = (Policy::of(namespace).0.enforce, Policy::of(old).0.enforce);
    let is_relaxed = new.version == old.version && new.level <= old.level;
    if new == old || new.level == Level::Privileged || is_relaxed {
        return Vec::new();
    }
    let all = context.lookup.list("", "pods", request.object_name(Some(namespace)));
    let mut found: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for pod in all.iter().take(MOST) {
        let reasons: Vec<_> = checks::violations(pod, new).into_iter().map(|violation| violation.reason).collect();
        if !reasons.is_empty() {
            found.entry(reasons.join(", ")).or_default().insert(text(pod, "/metadata/name"));
        }
    }
    let mut warnings = Vec::new();
    if all.len() > MOST {
        let count = all.len();
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {MOST} of {count} existing pods"
        ));
    }
    if !found.is_empty() {
        let name = text(namespace, "/metadata/name");
        warnings
            .push(format!("existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{new}\""));
    }
    let mut each: Vec<_> = found.into_iter().map(|(reason, names)| format!("{}: {reason}", counted(&names))).collect();
    each.sort();
    warnings.extend(each);
    warnings
}

fn counted(names: &BTreeSet<&str>) -> String {
    let first = names.first().copied().unwrap_or_default();
    match names.len().saturating_sub(1) {
        0 => first.to_owned(),
        1 => format!("{first} (and 1 other pod)"),
        others => format!("{first} (and {others} other pods)"),
    }
}

#[cfg(test)]
mod tests;
