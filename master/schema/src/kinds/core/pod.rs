//! `v1` Pod.

use serde_json::{Value, json};

use crate::defaults;
use crate::kind::{Column, FieldLabel, Hooks, Kind, Names, Part, Subresource};
use crate::pod::{app_armor, label_keys, qos, row, update, validate, warnings as pod_warnings};
use crate::value::{Fields, put};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: SUBRESOURCES,
    generation: true,
    fields: FIELDS,
    returns_deleted_object: true,
    columns: COLUMNS,
    hooks: Hooks {
        default: defaults::pod,
        prepare_create,
        prepare_update,
        validate: validate::new_pod,
        validate_update: update::pod,
        row: row::pod,
        warnings: pod_warnings::pod,
        warnings_unprepared: pod_warnings::unprepared,
        ..Hooks::PLAIN
    },
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Pod", list: "PodList", plural: "pods", singular: "pod" };

const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
const CHANGE: &[&str] = &["get", "patch", "update"];
const CONNECT: &[&str] = &["create", "get"];

const fn core(name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> Subresource {
    Subresource { name, group: "", version: "v1", kind, verbs }
}

const SUBRESOURCES: &[Subresource] = &[
    core("attach", "PodAttachOptions", CONNECT),
    core("binding", "Binding", &["create"]),
    core("ephemeralcontainers", "Pod", CHANGE),
    Subresource { name: "eviction", group: "policy", version: "v1", kind: "Eviction", verbs: &["create"] },
    core("exec", "PodExecOptions", CONNECT),
    core("log", "Pod", &["get"]),
    core("portforward", "PodPortForwardOptions", CONNECT),
    core("proxy", "PodProxyOptions", PROXY),
    core("resize", "Pod", CHANGE),
    core("status", "Pod", CHANGE),
];

const FIELDS: &[FieldLabel] = &[
    FieldLabel::text("spec.nodeName", "/spec/nodeName"),
    FieldLabel::text("spec.restartPolicy", "/spec/restartPolicy"),
    FieldLabel::text("spec.schedulerName", "/spec/schedulerName"),
    FieldLabel::text("spec.serviceAccountName", "/spec/serviceAccountName"),
    FieldLabel { absent: "false", ..FieldLabel::text("spec.hostNetwork", "/spec/hostNetwork") },
    FieldLabel::text("status.phase", "/status/phase"),
    FieldLabel::text("status.podIP", "/status/podIP"),
    FieldLabel::text("status.podIPs", "/status/podIP"),
    FieldLabel::text("status.nominatedNodeName", "/status/nominatedNodeName"),
];

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Ready", "Ready containers of those there are"),
    Column::text("Status", "What the containers together are doing"),
    Column::text("Restarts", "Restarts of the containers, and when the last one was"),
    Column::AGE,
    Column::wide("IP", "Address of the pod"),
    Column::wide("Node", "Node that runs the pod"),
    Column::wide("Nominated Node", "Node on which others are preempted for the pod"),
    Column::wide("Readiness Gates", "Readiness gates that are true, of those there are"),
];

fn prepare_create(object: &mut Value) {
    let class = qos::class(object.at("spec"));
    let mut status = json!({ "phase": "Pending", "qosClass": class });
    if !object.at("spec").list("schedulingGates").is_empty() {
        put(&mut status, "conditions", json!([gated(object)]));
    }
    put(object, "status", status);
    if let Some(Value::Object(spec)) = object.get_mut("spec") {
        spec.remove("ephemeralContainers");
    }
    label_keys::merge(object);
    app_armor::from_annotations(object);
}

/// No scheduler looks at a pod with scheduling gates, so that it is told here (KEP-3521).
fn gated(object: &Value) -> Value {
    json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates",
        "lastProbeTime": null,
        "lastTransitionTime": object.at("metadata").at("creationTimestamp"),
    })
}

fn prepare_update(part: Part, object: &mut Value, old: &Value) {
    update::keep(part, object, old);
}
