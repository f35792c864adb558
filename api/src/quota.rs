//! What objects use of a ResourceQuota, and which quotas count them (`pkg/quota/v1/evaluator`). Pure; objects are dynamic,
//! since any kind can be counted.

use std::collections::BTreeSet;

use crate::pod::is_terminal_phase;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde::Deserialize;
use serde_json::Value;

use crate::qos::{self, QosClass};
use crate::quantity::{Format, Quantity};
use crate::resources::{self, ResourceList};

/// Names by which whole objects were counted before `count/` was.
const COUNTED: [&str; 6] =
    ["configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services"];
/// What every container must say if a quota bounds it.
const MUST_SAY: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

const ONE: fn() -> Quantity = || Quantity::new(1, Format::DecimalSi);

/// The name by which a quota counts objects of a resource: `count/deployments.apps`.
#[must_use]
pub fn count_name(group: &str, resource: &str) -> String {
    if group.is_empty() { format!("count/{resource}") } else { format!("count/{resource}.{group}") }
}

/// The (group, resource) that a name in `spec.hard` is about.
#[must_use]
pub fn counts(name: &str) -> (&str, &str) {
    let is_claims = name == "requests.storage" || name.ends_with(".storageclass.storage.k8s.io/requests.storage");
    match name.strip_prefix("count/") {
        Some(counted) => counted.split_once('.').map_or(("", counted), |(resource, group)| (group, resource)),
        None if COUNTED.contains(&name) => ("", name),
        None if name.starts_with("services.") => ("", "services"),
        None if is_claims || name.ends_with("/persistentvolumeclaims") => ("", "persistentvolumeclaims"),
        None => ("", "pods"),
    }
}

/// What one object uses.
#[must_use]
pub fn usage(group: &str, resource: &str, object: &Value) -> ResourceList {
    let mut used = ResourceList::new();
    used.insert(count_name(group, resource), ONE());
    match (group, resource) {
        ("", "pods") => pod(object, &mut used),
        ("", "services") => service(object, &mut used),
        ("", "persistentvolumeclaims") => claim(object, &mut used),
        _ => {}
    }
    if group.is_empty() && COUNTED.contains(&resource) {
        used.insert(resource.to_owned(), ONE());
    }
    used
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn spec_of(pod: &Value) -> Option<PodSpec> {
    serde_json::from_value(pod.get("spec")?.clone()).ok()
}

/// Pods that have ended use nothing but their own existence.
fn pod(pod: &Value, used: &mut ResourceList) {
    if is_terminal_phase(Some(text(pod, "/status/phase"))) {
        return;
    }
    used.insert("pods".to_owned(), ONE());
    let Ok(pod) = Pod::deserialize(pod) else { return };
    for (name, amount) in resources::held(&pod) {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in resources::held_limits(&pod) {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), amount);
        }
    }
}

fn service(service: &Value, used: &mut ResourceList) {
    let kind = text(service, "/spec/type");
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).map_or(0, Vec::len);
    let ports = Quantity::new(i64::try_from(ports).unwrap_or(i64::MAX), Format::DecimalSi);
    let allocates = service.pointer("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true);
    if kind == "LoadBalancer" {
        used.insert("services.loadbalancers".to_owned(), ONE());
    }
    if kind == "NodePort" || (kind == "LoadBalancer" && allocates) {
        used.insert("services.nodeports".to_owned(), ports);
    }
}

fn claim(claim: &Value, used: &mut ResourceList) {
    let class = text(claim, "/spec/storageClassName");
    let of_class = |name: &str| format!("{class}.storageclass.storage.k8s.io/{name}");
    if !class.is_empty() {
        used.insert(of_class("persistentvolumeclaims"), ONE());
    }
    if let Ok(size) = text(claim, "/spec/resources/requests/storage").parse::<Quantity>() {
        used.insert("requests.storage".to_owned(), size);
        if !class.is_empty() {
            used.insert(of_class("requests.storage"), size);
        }
    }
}

/// Whether a quota's scopes let it count an object.
#[must_use]
pub fn is_in_scope(quota: &Value, (group, resource): (&str, &str), object: &Value) -> bool {
    let list = |pointer: &str| quota.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let scopes = list("/spec/scopes").iter().filter_map(Value::as_str).map(|scope| (scope, "Exists", &[][..]));
    let selected = list("/spec/scopeSelector/matchExpressions").iter().map(|requirement| {
        let values = requirement.get("values").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        (text(requirement, "/scopeName"), text(requirement, "/operator"), values)
    });
    let mut all = scopes.chain(selected).peekable();
    if all.peek().is_none() {
        return true;
    }
    match (group, resource) {
        ("", "pods") => {
            let Some(spec) = spec_of(object) else { return false };
            all.all(|(scope, operator, values)| pod_matches(&spec, scope, operator, values))
        }
        ("", "persistentvolumeclaims") => all.all(|(scope, operator, values)| {
            scope == "VolumeAttributesClass"
                && selects(text(object, "/spec/volumeAttributesClassName"), operator, values)
        }),
        _ => false,
    }
}

fn pod_matches(spec: &PodSpec, scope: &str, operator: &str, values: &[Value]) -> bool {
    match scope {
        "Terminating" => spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0),
        "NotTerminating" => spec.active_deadline_seconds.is_none_or(|seconds| seconds < 0),
        "BestEffort" => qos::class(spec) == QosClass::BestEffort,
        "NotBestEffort" => qos::class(spec) != QosClass::BestEffort,
        "PriorityClass" => selects(spec.priority_class_name.as_deref().unwrap_or_default(), operator, values),
        "CrossNamespacePodAffinity" => crosses_namespaces(spec),
        _ => false,
    }
}

fn selects(name: &str, operator: &str, values: &[Value]) -> bool {
    let listed = || values.iter().any(|value| value == name);
    match operator {
        "Exists" => !name.is_empty(),
        "DoesNotExist" => name.is_empty(),
        "In" => !name.is_empty() && listed(),
        "NotIn" => !listed(),
        _ => false,
    }
}

fn crosses_namespaces(spec: &PodSpec) -> bool {
    let Some(affinity) = &spec.affinity else { return false };
    let (pods, anti) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
    let required = pods.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let required_anti = anti.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let preferred = pods.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let preferred_anti = anti.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let hard = required.into_iter().chain(required_anti).flatten();
    let soft = preferred.into_iter().chain(preferred_anti).flatten().map(|term| &term.pod_affinity_term);
    hard.chain(soft).any(|term| {
        term.namespaces.as_ref().is_some_and(|names| !names.is_empty()) || term.namespace_selector.is_some()
    })
}

/// What containers of a new pod leave unsaid that a quota bounds: `limits.cpu for: a,b; memory for: a`.
#[must_use]
pub fn unsaid(hard: &BTreeSet<String>, pod: &Value) -> Option<String> {
    let spec = spec_of(pod)?;
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let containers: Vec<_> = containers.collect();
    let mut missing = Vec::new();
    for name in MUST_SAY.iter().filter(|name| hard.contains(**name)) {
        let (of_limits, resource) = match name.strip_prefix("limits.") {
            Some(resource) => (true, resource),
            None => (false, name.strip_prefix("requests.").unwrap_or(name)),
        };
        let says = |lists: Option<&k8s_openapi::api::core::v1::ResourceRequirements>| {
            let list = lists.and_then(|r| if of_limits { r.limits.as_ref() } else { r.requests.as_ref() });
            list.is_some_and(|list| list.contains_key(resource))
        };
        if spec.resources.as_ref().is_some_and(|resources| {
            let list = if of_limits { resources.limits.as_ref() } else { resources.requests.as_ref() };
            list.is_some_and(|list| list.contains_key(resource))
        }) {
            continue;
        }
        let mut silent: Vec<&str> =
            containers.iter().filter(|c| !says(c.resources.as_ref())).map(|c| c.name.as_str()).collect();
        silent.sort_unstable();
        if !silent.is_empty() {
            missing.push(format!("{name} for: {}", silent.join(",")));
        }
    }
    if missing.is_empty() { None } else { Some(missing.join("; ")) }
}

/// The part of a list that is named.
#[must_use]
pub fn only(list: &ResourceList, names: &BTreeSet<String>) -> ResourceList {
    list.iter().filter(|(name, _)| names.contains(*name)).map(|(name, amount)| (name.clone(), *amount)).collect()
}

/// `cpu=1,pods=2`
#[must_use]
pub fn shown(list: &ResourceList) -> String {
    list.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: Value) -> Value {
        json!({ "spec": spec })
    }

    #[test]
    fn what_objects_use() {
        let of = |group: &str, resource: &str, object: Value| shown(&usage(group, resource, &object));
        assert_eq!(of("apps", "deployments", json!({})), "count/deployments.apps=1");
        assert_eq!(of("", "secrets", json!({})), "count/secrets=1,secrets=1");
        let containers =
            json!([{ "name": "c", "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "2" } } }]);
        let running = pod(json!({ "containers": containers }));
        assert_eq!(of("", "pods", running.clone()), "count/pods=1,cpu=1,limits.cpu=2,pods=1,requests.cpu=1");
        let mut ended = running;
        ended["status"] = json!({ "phase": "Failed" });
        assert_eq!(of("", "pods", ended), "count/pods=1");
        let service = json!({ "spec": { "type": "LoadBalancer", "ports": [{}, {}] } });
        let wanted = "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2";
        assert_eq!(of("", "services", service), wanted);
        let claim =
            json!({ "spec": { "storageClassName": "fast", "resources": { "requests": { "storage": "1Gi" } } } });
        assert_eq!(
            of("", "persistentvolumeclaims", claim),
            "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             fast.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi"
        );
    }

    #[test]
    fn every_name_is_about_one_resource() {
        assert_eq!(counts("count/foos.example.com"), ("example.com", "foos"));
        assert_eq!(counts("services.nodeports"), ("", "services"));
        assert_eq!(counts("fast.storageclass.storage.k8s.io/requests.storage"), ("", "persistentvolumeclaims"));
        assert_eq!(counts("requests.example.com/gpu"), ("", "pods"));
    }

    #[test]
    fn scopes_choose_pods() {
        let in_scope = |scopes: Value, spec: Value| {
            is_in_scope(&json!({ "spec": { "scopes": scopes } }), ("", "pods"), &pod(spec))
        };
        let plain = json!({ "containers": [{ "name": "c" }] });
        assert!(in_scope(json!(["BestEffort", "NotTerminating"]), plain.clone()));
        assert!(!in_scope(json!(["Terminating"]), plain.clone()));
        assert!(in_scope(json!(["Terminating"]), json!({ "containers": [], "activeDeadlineSeconds": 5 })));
        let selector = json!({ "spec": { "scopeSelector": { "matchExpressions": [
            { "scopeName": "PriorityClass", "operator": "In", "values": ["high"] }] } } });
        let high = json!({ "containers": [], "priorityClassName": "high" });
        assert!(is_in_scope(&selector, ("", "pods"), &pod(high)));
        assert!(!is_in_scope(&selector, ("", "pods"), &pod(plain)));
        assert!(!is_in_scope(&selector, ("", "services"), &json!({})));
    }

    #[test]
    fn what_must_be_said() {
        let hard: BTreeSet<String> = ["limits.cpu", "memory", "pods"].map(str::to_owned).into();
        let silent = pod(json!({ "containers": [{ "name": "b" }, { "name": "a" }] }));
        assert_eq!(unsaid(&hard, &silent).as_deref(), Some("limits.cpu for: a,b; memory for: a,b"));
        let told = json!({ "limits": { "cpu": "1" }, "requests": { "memory": "1" } });
        assert_eq!(unsaid(&hard, &pod(json!({ "containers": [{ "name": "a", "resources": told }] }))), None);
    }
}
