//! Defaulting: what hangs on a type wherever it occurs, then what a kind adds.
//!
//! Upstream's `SetDefaults_*` functions of `pkg/apis/core/v1` and the `+default=` markers of the API types.

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::quantity::rounded_to_milli;
use crate::types::{Definition, Type, types};
use crate::value::{Fields, Object, object_in, objects_in, set_if_unset};

pub(crate) fn apply(kind: &Kind, object: &mut Value) {
    (kind.hooks.default)(object);
    if let Some(custom) = kind.custom {
        return custom.default(object);
    }
    if let Some(root) = types().root(kind.definition) {
        walk(root, object);
    }
}

fn walk(kind: Type, value: &mut Value) {
    match (kind, value) {
        (Type::Object(index), Value::Object(object)) => {
            if let Some(definition) = types().get(index) {
                definition_defaults(definition, object);
            }
        }
        (Type::List(item), Value::Array(list)) => list.iter_mut().for_each(|v| walk(*item, v)),
        (Type::Map(Type::Quantity), Value::Object(map)) => map.values_mut().for_each(round_up),
        (Type::Map(item), Value::Object(map)) => map.values_mut().for_each(|v| walk(*item, v)),
        _ => {}
    }
}

fn definition_defaults(definition: &Definition, object: &mut Object) {
    for field in &definition.fields {
        if let Some(default) = &field.default {
            let zero = object.get(field.name).is_none_or(|v| !field.pointer && (v == 0 || v == ""));
            if zero {
                object.insert(field.name.to_string(), default.clone());
            }
        }
    }
    if definition.name == "io.k8s.api.batch.v1.PodFailurePolicyOnPodConditionsPattern" {
        set_if_unset(object, "status", "True");
    }
    if let Some(core) = definition.name.strip_prefix("io.k8s.api.core.v1.") {
        core_defaults(core, object);
    }
    for field in &definition.fields {
        if let Some(value) = object.get_mut(field.name) {
            walk(field.kind, value);
        }
    }
}

fn core_defaults(name: &str, object: &mut Object) {
    match name {
        "PodSpec" => pod_spec(object),
        "Container" | "EphemeralContainer" => container(object),
        "Probe" => probe(object),
        "Volume" => volume(object),
        "HTTPGetAction" => {
            set_if_unset(object, "path", "/");
            set_if_unset(object, "scheme", "HTTP");
        }
        "SecretVolumeSource" | "ConfigMapVolumeSource" | "DownwardAPIVolumeSource" | "ProjectedVolumeSource" => {
            set_if_unset(object, "defaultMode", 0o644);
        }
        "ServiceAccountTokenProjection" => set_if_unset(object, "expirationSeconds", 3_600),
        "HostPathVolumeSource" => set_if_null(object, "type", json!("")),
        "ObjectFieldSelector" => set_if_unset(object, "apiVersion", "v1"),
        "PersistentVolumeClaim" => set_if_unset(object_in(object, "status"), "phase", "Pending"),
        "PersistentVolumeClaimSpec" => set_if_unset(object, "volumeMode", "Filesystem"),
        "NodeStatus" if !object.has("allocatable") && object.has("capacity") => {
            let capacity = object.at("capacity").clone();
            object.insert("allocatable".into(), capacity);
        }
        _ => {}
    }
}

/// Resource lists hold nothing smaller than a thousandth.
fn round_up(value: &mut Value) {
    if let Some(rounded) = value.as_str().and_then(rounded_to_milli) {
        *value = rounded.into();
    }
}

fn set_if_null(object: &mut Object, field: &str, value: Value) {
    if !object.has(field) {
        object.insert(field.to_string(), value);
    }
}

fn set_if_zero(object: &mut Object, field: &str, value: i64) {
    if object.int(field).unwrap_or(0) == 0 {
        object.insert(field.to_string(), value.into());
    }
}

const GRACE: &str = "terminationGracePeriodSeconds";

fn pod_spec(spec: &mut Object) {
    set_if_unset(spec, "dnsPolicy", "ClusterFirst");
    set_if_unset(spec, "restartPolicy", "Always");
    set_if_null(spec, GRACE, json!(30));
    set_if_unset(spec, "schedulerName", "default-scheduler");
    object_in(spec, "securityContext");
    service_account(spec);
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always shown (upstream converts one to the other).
fn service_account(spec: &mut Object) {
    let current = spec.text("serviceAccountName");
    let name = if current.is_empty() { spec.text("serviceAccount") } else { current }.to_string();
    for field in ["serviceAccountName", "serviceAccount"] {
        if name.is_empty() {
            spec.remove(field);
        } else {
            spec.insert(field.to_string(), name.clone().into());
        }
    }
}

fn container(container: &mut Object) {
    let policy = api::image::default_pull_policy(container.text("image"));
    set_if_unset(container, "imagePullPolicy", policy);
    set_if_unset(container, "terminationMessagePath", "/dev/termination-log");
    set_if_unset(container, "terminationMessagePolicy", "File");
}

fn probe(probe: &mut Object) {
    set_if_zero(probe, "timeoutSeconds", 1);
    set_if_zero(probe, "periodSeconds", 10);
    set_if_zero(probe, "successThreshold", 1);
    set_if_zero(probe, "failureThreshold", 3);
    // `+default=""` on a pointer: shown even though empty.
    if let Some(Value::Object(grpc)) = probe.get_mut("grpc") {
        set_if_null(grpc, "service", json!(""));
    }
}

fn volume(volume: &mut Object) {
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".into(), json!({}));
    }
    if let Some(Value::Object(source)) = volume.get_mut("image") {
        let policy = api::image::default_pull_policy(source.text("reference"));
        set_if_unset(source, "pullPolicy", policy);
    }
}

/// Upstream's `SetDefaults_Pod`: what only pods get, not templates.
pub(crate) fn pod(pod: &mut Value) {
    let Value::Object(pod) = pod else { return };
    let spec = object_in(pod, "spec");
    set_if_null(spec, "enableServiceLinks", json!(true));
    // One that is negative is as short as can be: upstream converts it, of pods but not of templates.
    if spec.int(GRACE).is_some_and(|grace| grace < 0) {
        spec.insert(GRACE.to_owned(), json!(1));
    }
    let host_network = spec.flag("hostNetwork");
    for list in ["containers", "initContainers"] {
        for container in objects_in(spec, list) {
            requests_from_limits(container);
            if host_network {
                objects_in(container, "ports").for_each(host_port);
            }
        }
    }
    pod_requests(spec);
}

fn requests_from_limits(container: &mut Object) {
    let resources = container.at("resources");
    let Some(limits) = resources.at("limits").as_object().cloned() else { return };
    let resources = object_in(container, "resources");
    let requests = object_in(resources, "requests");
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

fn host_port(port: &mut Object) {
    if port.int("hostPort").unwrap_or(0) == 0 {
        let container_port = port.at("containerPort").clone();
        port.insert("hostPort".into(), container_port);
    }
}

/// Pod-level requests (KEP-2837) follow pod-level limits where no container asks for the resource.
fn pod_requests(spec: &mut Object) {
    let Some(limits) = spec.at("resources").at("limits").as_object().cloned() else { return };
    let asked: Vec<String> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.list(list))
        .flat_map(|c| c.at("resources").entries("requests").map(|(name, _)| name.clone()))
        .collect();
    let requests = object_in(object_in(spec, "resources"), "requests");
    for (name, limit) in limits.into_iter().filter(|(name, _)| !asked.contains(name)) {
        requests.entry(name).or_insert(limit);
    }
}
