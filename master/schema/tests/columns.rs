//! Rows as `kubectl get -o wide` prints them.
// Helpers of tests: clippy.toml excepts only the test functions themselves.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use jiff::Timestamp;
use schema::{Registry, human_duration};
use serde_json::{Value, json};

/// The cells, as texts.
fn row(api_version: &str, kind: &str, object: Value) -> Vec<String> {
    let kind = Registry::builtin().by_kind(api_version, kind).unwrap();
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    let cells = kind.table_row(&object, now);
    assert_eq!(cells.len(), kind.columns().len());
    cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_string)).collect()
}

fn meta() -> Value {
    json!({ "name": "x", "creationTimestamp": "2026-01-01T00:00:00Z" })
}

fn pod(status: Value) -> Vec<String> {
    let spec = json!({ "nodeName": "n1", "containers": [{ "name": "a" }, { "name": "b" }], "initContainers": [{ "name": "i" }] });
    row("v1", "Pod", json!({ "metadata": meta(), "spec": spec, "status": status }))
}

#[test]
fn running_pods() {
    let running = json!({ "ready": true, "restartCount": 0, "state": { "running": {} } });
    let restarted = json!({
        "ready": true,
        "restartCount": 2,
        "state": { "running": {} },
        "lastState": { "terminated": { "finishedAt": "2026-01-01T00:55:00Z" } },
    });
    let init = json!({ "name": "i", "state": { "terminated": { "exitCode": 0 } } });
    let status = json!({
        "phase": "Running",
        "podIPs": [{ "ip": "10.0.0.1" }],
        "containerStatuses": [running, restarted],
        "initContainerStatuses": [init],
    });
    assert_eq!(pod(status), ["x", "2/2", "Running", "2 (5m ago)", "60m", "10.0.0.1", "n1", "<none>", "<none>"]);
}

#[test]
fn pods_in_trouble() {
    let status =
        |state: Value| json!({ "phase": "Running", "containerStatuses": [{ "restartCount": 1, "state": state }] });
    for (state, expected) in [
        (json!({ "waiting": { "reason": "CrashLoopBackOff" } }), "CrashLoopBackOff"),
        (json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } }), "OOMKilled"),
        (json!({ "terminated": { "exitCode": 3 } }), "ExitCode:3"),
        (json!({ "terminated": { "signal": 9 } }), "Signal:9"),
    ] {
        assert_eq!(pod(status(state))[2], expected);
    }
    let init = |state: Value| json!({ "phase": "Pending", "initContainerStatuses": [{ "name": "i", "state": state }] });
    for (state, expected) in [
        (json!({ "running": {} }), "Init:0/1"),
        (json!({ "waiting": { "reason": "ImagePullBackOff" } }), "Init:ImagePullBackOff"),
        (json!({ "terminated": { "exitCode": 1, "reason": "Error" } }), "Init:Error"),
    ] {
        assert_eq!(pod(init(state))[2], expected);
    }
    let mut meta = meta();
    meta["deletionTimestamp"] = "2026-01-01T00:59:00Z".into();
    let deleted = json!({ "metadata": meta, "spec": {}, "status": { "phase": "Running" } });
    assert_eq!(row("v1", "Pod", deleted)[2], "Terminating");
}

#[test]
fn workloads() {
    let template =
        json!({ "spec": { "containers": [{ "name": "a", "image": "i:1" }, { "name": "b", "image": "j:2" }] } });
    let spec = json!({ "replicas": 3, "selector": { "matchLabels": { "app": "x" } }, "template": template });
    let status = json!({ "replicas": 3, "readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2 });
    let object = json!({ "metadata": meta(), "spec": spec, "status": status });
    assert_eq!(row("apps/v1", "Deployment", object.clone()), ["x", "2/3", "1", "2", "60m", "a,b", "i:1,j:2", "app=x"]);
    assert_eq!(row("apps/v1", "ReplicaSet", object), ["x", "3", "3", "2", "60m", "a,b", "i:1,j:2", "app=x"]);
}

#[test]
fn services_and_endpoints() {
    let spec = json!({
        "type": "NodePort",
        "clusterIPs": ["10.96.0.9"],
        "ports": [{ "port": 80, "nodePort": 30080, "protocol": "TCP" }, { "port": 53, "protocol": "UDP" }],
        "selector": { "app": "x", "tier": "y" },
    });
    assert_eq!(
        row("v1", "Service", json!({ "metadata": meta(), "spec": spec })),
        ["x", "NodePort", "10.96.0.9", "<none>", "80:30080/TCP,53/UDP", "60m", "app=x,tier=y"]
    );
    let addresses: Vec<Value> = (1..=5).map(|n| json!({ "ip": format!("10.0.0.{n}") })).collect();
    let subsets = json!([{ "addresses": addresses, "ports": [{ "port": 80 }] }]);
    let endpoints = row("v1", "Endpoints", json!({ "metadata": meta(), "subsets": subsets }));
    assert_eq!(endpoints[1], "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...");
    assert_eq!(row("v1", "Endpoints", json!({ "metadata": meta() }))[1], "<none>");
}

#[test]
fn nodes() {
    let mut meta = meta();
    meta["labels"] = json!({ "node-role.kubernetes.io/control-plane": "" });
    let status = json!({
        "conditions": [{ "type": "Ready", "status": "True" }],
        "addresses": [{ "type": "InternalIP", "address": "10.1.1.1" }],
        "nodeInfo": {
            "kubeletVersion": "v1.36.0",
            "osImage": "Debian",
            "kernelVersion": "6.18",
            "architecture": "amd64",
            "containerRuntimeVersion": "containerd://2.1",
        },
    });
    let node = json!({ "metadata": meta, "spec": { "unschedulable": true }, "status": status });
    assert_eq!(
        row("v1", "Node", node),
        [
            "x",
            "Ready,SchedulingDisabled",
            "control-plane",
            "60m",
            "v1.36.0",
            "10.1.1.1",
            "<none>",
            "Debian",
            "6.18 (amd64)",
            "containerd://2.1"
        ]
    );
}

#[test]
fn events_in_both_apis() {
    let event = json!({
        "metadata": meta(),
        "type": "Warning",
        "reason": "BackOff",
        "message": "back-off \n",
        "count": 3,
        "firstTimestamp": "2026-01-01T00:50:00Z",
        "lastTimestamp": "2026-01-01T00:59:30Z",
        "involvedObject": { "kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}" },
        "source": { "component": "kubelet", "host": "n1" },
    });
    let cells = row("v1", "Event", event.clone());
    assert_eq!(
        cells,
        ["30s", "Warning", "BackOff", "pod/p", "spec.containers{a}", "kubelet, n1", "back-off", "10m", "3", "x"]
    );
    let newer = Registry::builtin().by_kind("events.k8s.io/v1", "Event").unwrap();
    let shown = newer.from_storage(event.clone());
    assert_eq!(shown["regarding"], event["involvedObject"]);
    assert_eq!(row("events.k8s.io/v1", "Event", shown.clone()), cells);
    let mut stored = newer.to_storage(shown);
    stored.as_object_mut().unwrap().remove("apiVersion");
    assert_eq!(stored, event);
}

#[test]
fn ages() {
    for (seconds, text) in [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (10_800, "3h"),
        (10_860, "3h1m"),
        (28_800, "8h"),
        (172_799, "47h"),
        (172_800, "2d"),
        (176_400, "2d1h"),
        (691_200, "8d"),
        (63_072_000, "2y"),
        (63_158_400, "2y1d"),
        (-5, "<invalid>"),
    ] {
        assert_eq!(human_duration(seconds), text, "{seconds}");
    }
}

#[test]
fn jobs_and_what_they_store() {
    let template = json!({ "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    let spec = json!({ "completions": 3, "parallelism": 2, "selector": { "matchLabels": { "a": "b" } }, "template": template });
    let status = json!({ "succeeded": 1, "startTime": "2026-01-01T00:58:00Z" });
    let job = row("batch/v1", "Job", json!({ "metadata": meta(), "spec": spec, "status": status }));
    assert_eq!(job, ["x", "Running", "1/3", "2m", "60m", "c", "i", "a=b"]);
    let cron = json!({ "schedule": "@daily", "suspend": true, "jobTemplate": { "spec": { "template": template } } });
    let cron = row("batch/v1", "CronJob", json!({ "metadata": meta(), "spec": cron }));
    assert_eq!(cron, ["x", "@daily", "<none>", "True", "0", "<none>", "60m", "c", "i", "<none>"]);
    let volume = json!({
        "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "storageClassName": "fast",
        "persistentVolumeReclaimPolicy": "Retain", "claimRef": { "namespace": "n", "name": "c" }, "volumeMode": "Filesystem",
    });
    let volume = json!({ "metadata": meta(), "spec": volume, "status": { "phase": "Bound" } });
    let shown = ["x", "1Gi", "RWO,ROX", "Retain", "Bound", "n/c", "fast", "<unset>", "", "60m", "Filesystem"];
    assert_eq!(row("v1", "PersistentVolume", volume), shown);
    let class = json!({
        "metadata": { "name": "x", "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } },
        "provisioner": "p", "volumeBindingMode": "Immediate", "reclaimPolicy": "Delete",
    });
    assert_eq!(
        row("storage.k8s.io/v1", "StorageClass", class),
        ["x (default)", "p", "Delete", "Immediate", "false", "60m"]
    );
    let quota = json!({ "hard": { "pods": "5", "limits.cpu": "2" }, "used": { "pods": "1", "limits.cpu": "500m" } });
    let quota = row("v1", "ResourceQuota", json!({ "metadata": meta(), "status": quota }));
    assert_eq!(quota, ["x", "pods: 1/5", "limits.cpu: 500m/2", "60m"]);
}

#[test]
fn addresses_and_their_networks() {
    let parent = json!({ "group": "Gateways.example", "resource": "Routes", "namespace": "ns", "name": "r" });
    let address = |spec: Value| row("networking.k8s.io/v1", "IPAddress", json!({ "metadata": meta(), "spec": spec }));
    assert_eq!(address(json!({ "parentRef": parent })), ["x", "routes.gateways.example/ns/r"]);
    assert_eq!(address(json!({ "parentRef": { "resource": "services", "name": "s" } })), ["x", "services/s"]);
    assert_eq!(address(json!({})), ["x", "<none>"]);
    let spec = json!({ "cidrs": ["10.0.0.0/8", "2001:db8::/64"] });
    let network = row("networking.k8s.io/v1", "ServiceCIDR", json!({ "metadata": meta(), "spec": spec }));
    assert_eq!(network, ["x", "10.0.0.0/8,2001:db8::/64", "60m"]);
}

#[test]
fn who_serves_a_group() {
    let service = |more: Value, conditions: Value| {
        let spec = json!({ "group": "a.io", "version": "v1", "service": more });
        let object = json!({ "metadata": meta(), "spec": spec, "status": { "conditions": conditions } });
        row("apiregistration.k8s.io/v1", "APIService", object)
    };
    let available = |status: &str, reason: &str| json!([{ "type": "Available", "status": status, "reason": reason }]);
    assert_eq!(service(Value::Null, available("True", "Local")), ["x", "Local", "True", "60m"]);
    let remote = json!({ "namespace": "ns", "name": "s", "port": 443 });
    let shown = ["x", "ns/s", "False (MissingEndpoints)", "60m"];
    assert_eq!(service(remote.clone(), available("False", "MissingEndpoints")), shown);
    assert_eq!(service(remote, json!([])), ["x", "ns/s", "Unknown", "60m"]);
}

#[test]
fn autoscalers_show_what_is_measured_and_wanted() {
    let metric = |kind: &str, field: &str, source: Value| json!({ "type": kind, field: source });
    let cpu = |of: &str, percent: i64| {
        metric(
            "Resource",
            "resource",
            json!({ "name": "cpu", of: { "type": "Utilization", "averageUtilization": percent } }),
        )
    };
    let average = |of: &str, amount: &str| {
        metric("Object", "object", json!({ "metric": { "name": "m" }, of: { "averageValue": amount } }))
    };
    let target = json!({ "kind": "Deployment", "name": "web" });
    let spec = json!({ "scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 5,
        "metrics": [cpu("target", 80), average("target", "10"), average("target", "1")] });
    let status = json!({ "currentReplicas": 2, "currentMetrics": [cpu("current", 12)] });
    let object = json!({ "metadata": meta(), "spec": spec, "status": status });
    let wanted = ["x", "Deployment/web", "cpu: 12%/80%, <unknown>/10 (avg) + 1 more...", "1", "5", "2", "60m"];
    assert_eq!(row("autoscaling/v2", "HorizontalPodAutoscaler", object), wanted);
    let old = json!({ "metadata": meta(), "spec": { "scaleTargetRef": target, "maxReplicas": 5 } });
    let wanted = ["x", "Deployment/web", "cpu: <unknown>/80%", "<unset>", "5", "0", "60m"];
    assert_eq!(row("autoscaling/v1", "HorizontalPodAutoscaler", old), wanted);
}
