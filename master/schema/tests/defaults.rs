//! Defaults against what a stock API server of v1.36 stores for the same objects.
// Helpers of tests: clippy.toml excepts only the test functions themselves.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use schema::{FieldValidation, Registry};
use serde_json::{Value, json};

fn defaulted(api_version: &str, kind: &str, object: Value) -> Value {
    let kind = Registry::builtin().by_kind(api_version, kind).unwrap();
    let mut object = kind.decode_value(object, FieldValidation::Strict).unwrap().value;
    kind.default(&mut object);
    object
}

#[test]
#[allow(clippy::too_many_lines)] // one object, whole
fn a_pod() {
    let pod = defaulted(
        "v1",
        "Pod",
        json!({
            "spec": {
                "containers": [{
                    "name": "a",
                    "image": "nginx",
                    "ports": [{ "containerPort": 80 }],
                    "resources": { "limits": { "cpu": "1" } },
                    "env": [{ "name": "N", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
                    "readinessProbe": { "httpGet": { "port": 80 } },
                }],
                "volumes": [
                    { "name": "e" },
                    { "name": "h", "hostPath": { "path": "/x" } },
                    { "name": "c", "configMap": { "name": "c" } },
                    { "name": "s", "secret": { "secretName": "s" } },
                    { "name": "p", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } },
                ],
            },
        }),
    );
    assert_eq!(
        pod["spec"],
        json!({
            "containers": [{
                "name": "a",
                "image": "nginx",
                "imagePullPolicy": "Always",
                "ports": [{ "containerPort": 80, "protocol": "TCP" }],
                "resources": { "limits": { "cpu": "1" }, "requests": { "cpu": "1" } },
                "env": [{ "name": "N", "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.name" } } }],
                "readinessProbe": {
                    "httpGet": { "path": "/", "port": 80, "scheme": "HTTP" },
                    "timeoutSeconds": 1,
                    "periodSeconds": 10,
                    "successThreshold": 1,
                    "failureThreshold": 3,
                },
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30,
            "volumes": [
                { "name": "e", "emptyDir": {} },
                { "name": "h", "hostPath": { "path": "/x", "type": "" } },
                { "name": "c", "configMap": { "name": "c", "defaultMode": 420 } },
                { "name": "s", "secret": { "secretName": "s", "defaultMode": 420 } },
                { "name": "p", "projected": {
                    "defaultMode": 420,
                    "sources": [{ "serviceAccountToken": { "path": "token", "expirationSeconds": 3600 } }],
                } },
            ],
        })
    );
}

#[test]
fn no_grace_period_of_a_pod_is_negative() {
    let grace = |grace: i64| {
        let pod = json!({ "spec": { "containers": [], "terminationGracePeriodSeconds": grace } });
        defaulted("v1", "Pod", pod)["spec"]["terminationGracePeriodSeconds"].clone()
    };
    assert_eq!([-1, 0, 5].map(grace), [1, 0, 5]);
    // A template keeps what it says, and its maker is told of it.
    let spec = json!({ "containers": [], "terminationGracePeriodSeconds": -1 });
    let template = defaulted("v1", "PodTemplate", json!({ "template": { "spec": spec } }));
    assert_eq!(template["template"]["spec"]["terminationGracePeriodSeconds"], -1);
}

#[test]
fn images_decide_how_they_are_pulled() {
    for (image, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1", "IfNotPresent"),
        ("r:5000/nginx", "Always"),
        ("nginx@sha256:e4720093a3c1381245b53a5a51b417963b3c4472d3f47fc301930a4f3b17666a", "IfNotPresent"),
    ] {
        let pod = defaulted("v1", "Pod", json!({ "spec": { "containers": [{ "image": image }] } }));
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], policy, "{image}");
    }
}

#[test]
fn the_hosts_network_takes_the_hosts_ports() {
    let spec = json!({ "hostNetwork": true, "containers": [{ "ports": [{ "containerPort": 80 }] }] });
    let pod = defaulted("v1", "Pod", json!({ "spec": spec }));
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
}

#[test]
fn a_deployment() {
    let deployment =
        defaulted("apps/v1", "Deployment", json!({ "spec": { "template": { "spec": { "containers": [] } } } }));
    let spec = &deployment["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    let rolling = json!({ "maxSurge": "25%", "maxUnavailable": "25%" });
    assert_eq!(spec["strategy"], json!({ "type": "RollingUpdate", "rollingUpdate": rolling }));
    // Templates get what hangs on types, not what hangs on pods.
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    assert_eq!(spec["template"]["spec"]["enableServiceLinks"], Value::Null);
    let zero =
        defaulted("apps/v1", "Deployment", json!({ "spec": { "replicas": 0, "strategy": { "type": "Recreate" } } }));
    assert_eq!(zero["spec"]["replicas"], 0);
    assert_eq!(zero["spec"]["strategy"], json!({ "type": "Recreate" }));
}

#[test]
fn a_daemon_set() {
    let set = defaulted("apps/v1", "DaemonSet", json!({}));
    let rolling = json!({ "maxSurge": 0, "maxUnavailable": 1 });
    assert_eq!(set["spec"]["updateStrategy"], json!({ "type": "RollingUpdate", "rollingUpdate": rolling }));
}

#[test]
fn services() {
    let service =
        defaulted("v1", "Service", json!({ "spec": { "ports": [{ "port": 80 }], "sessionAffinity": "ClientIP" } }));
    assert_eq!(
        service["spec"],
        json!({
            "internalTrafficPolicy": "Cluster",
            "ports": [{ "port": 80, "protocol": "TCP", "targetPort": 80 }],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 10800 } },
            "type": "ClusterIP",
        })
    );
    let open = defaulted("v1", "Service", json!({ "spec": { "type": "NodePort" } }));
    assert_eq!(open["spec"]["externalTrafficPolicy"], "Cluster");
    let external = defaulted("v1", "Service", json!({ "spec": { "type": "ExternalName", "externalName": "x" } }));
    assert_eq!(external["spec"]["internalTrafficPolicy"], Value::Null);
}

#[test]
fn the_rest() {
    let namespace = defaulted("v1", "Namespace", json!({ "metadata": { "name": "n" } }));
    assert_eq!(namespace["metadata"]["labels"], json!({ "kubernetes.io/metadata.name": "n" }));
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(defaulted("v1", "Secret", json!({}))["type"], "Opaque");
    let node = defaulted("v1", "Node", json!({ "status": { "capacity": { "cpu": "2" } } }));
    assert_eq!(node["status"]["allocatable"], json!({ "cpu": "2" }));
    let binding = json!({ "roleRef": { "kind": "Role", "name": "r" }, "subjects": [{ "kind": "User", "name": "u" }] });
    let binding = defaulted("rbac.authorization.k8s.io/v1", "RoleBinding", binding);
    assert_eq!(binding["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(binding["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    let slice = json!({ "addressType": "IPv4", "endpoints": [], "ports": [{ "port": 80 }] });
    let slice = defaulted("discovery.k8s.io/v1", "EndpointSlice", slice);
    assert_eq!(slice["ports"], json!([{ "name": "", "port": 80, "protocol": "TCP" }]));
}

#[test]
fn what_is_served_here_is_available() {
    let kind = Registry::builtin().by_kind("apiregistration.k8s.io/v1", "APIService").unwrap();
    let metadata = json!({ "name": "v1.a.io", "creationTimestamp": "2026-01-01T00:00:00Z" });
    let mut local = json!({ "metadata": metadata, "spec": { "group": "a.io", "version": "v1" }, "status": { "conditions": [{ "type": "x" }] } });
    let mut remote = local.clone();
    kind.prepare_create(&mut local);
    let condition = &local["status"]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("Local")));
    assert_eq!(condition["lastTransitionTime"], "2026-01-01T00:00:00Z");
    remote["spec"]["service"] = json!({ "namespace": "ns", "name": "s" });
    kind.default(&mut remote);
    kind.prepare_create(&mut remote);
    assert_eq!(remote["spec"]["service"]["port"], 443);
    assert_eq!(remote["status"]["conditions"], Value::Null);
}

#[test]
fn a_secret_takes_texts() {
    let kind = Registry::builtin().by_kind("v1", "Secret").unwrap();
    let mut secret =
        json!({ "metadata": { "name": "s" }, "stringData": { "a": "x" }, "data": { "a": "", "b": "eA==" } });
    kind.prepare_create(&mut secret);
    assert_eq!(secret, json!({ "metadata": { "name": "s" }, "data": { "a": "eA==", "b": "eA==" } }));
}

#[test]
fn generations_count_changes_of_the_spec() {
    let kind = Registry::builtin().by_kind("apps/v1", "ReplicaSet").unwrap();
    let mut old = defaulted("apps/v1", "ReplicaSet", json!({ "metadata": { "name": "r", "generation": 7 } }));
    kind.prepare_create(&mut old);
    assert_eq!(old["metadata"]["generation"], 1);
    assert_eq!(old["status"], json!({ "replicas": 0 }));
    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({ "a": "b" });
    labelled["status"]["replicas"] = 9.into();
    kind.prepare_update(schema::Part::Main, &mut labelled, &old);
    assert_eq!(labelled["metadata"]["generation"], 1);
    assert_eq!(labelled["status"]["replicas"], 0);
    let mut scaled = old.clone();
    scaled["spec"]["replicas"] = 2.into();
    kind.prepare_update(schema::Part::Main, &mut scaled, &old);
    assert_eq!(scaled["metadata"]["generation"], 2);
    let mut status = old.clone();
    status["status"]["replicas"] = 2.into();
    status["spec"]["replicas"] = 5.into();
    kind.prepare_update(schema::Part::Status, &mut status, &old);
    assert_eq!((&status["spec"], &status["status"]["replicas"]), (&old["spec"], &2.into()));
}

#[test]
fn jobs_and_limits() {
    let job =
        defaulted("batch/v1", "Job", json!({ "spec": { "template": { "metadata": { "labels": { "a": "b" } } } } }));
    assert_eq!(job["metadata"]["labels"], json!({ "a": "b" }));
    let spec = &job["spec"];
    assert_eq!((&spec["completions"], &spec["parallelism"], &spec["backoffLimit"]), (&json!(1), &json!(1), &json!(6)));
    assert_eq!(
        (&spec["completionMode"], &spec["podReplacementPolicy"]),
        (&json!("NonIndexed"), &json!("TerminatingOrFailed"))
    );
    assert_eq!((&spec["suspend"], &spec["manualSelector"]), (&json!(false), &json!(false)));
    let item = json!({ "type": "Container", "max": { "cpu": "2" }, "min": { "memory": "1Mi" } });
    let range = defaulted("v1", "LimitRange", json!({ "spec": { "limits": [item] } }));
    let item = &range["spec"]["limits"][0];
    assert_eq!(item["default"], json!({ "cpu": "2" }));
    assert_eq!(item["defaultRequest"], json!({ "cpu": "2", "memory": "1Mi" }));
    let set = defaulted(
        "apps/v1",
        "StatefulSet",
        json!({ "spec": { "volumeClaimTemplates": [{ "metadata": { "name": "d" } }] } }),
    );
    let claim = &set["spec"]["volumeClaimTemplates"][0];
    assert_eq!((&claim["spec"]["volumeMode"], &claim["status"]["phase"]), (&json!("Filesystem"), &json!("Pending")));
    assert_eq!(set["spec"]["updateStrategy"], json!({ "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } }));
}

#[test]
fn a_new_pod_is_gated_and_has_its_labels_in_its_selectors() {
    let kind = Registry::builtin().by_kind("v1", "Pod").unwrap();
    let constraint = json!({
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {},
        "matchLabelKeys": ["v", "none"],
    });
    let term = json!({
        "topologyKey": "zone", "mismatchLabelKeys": ["v"],
        "labelSelector": { "matchExpressions": [{ "key": "app", "operator": "Exists" }] },
    });
    let mut pod = json!({
        "metadata": { "name": "p", "labels": { "v": "1" }, "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": {
            "containers": [{ "name": "c", "image": "i" }], "schedulingGates": [{ "name": "example.com/wait" }],
            "topologySpreadConstraints": [constraint],
            "affinity": { "podAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
                { "weight": 1, "podAffinityTerm": term }] } },
        },
    });
    kind.prepare_create(&mut pod);
    let condition = &pod["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["reason"]), (&json!("PodScheduled"), &json!("SchedulingGated")));
    assert_eq!(condition["lastTransitionTime"], "2026-01-01T00:00:00Z");
    let selector = &pod["spec"]["topologySpreadConstraints"][0]["labelSelector"];
    assert_eq!(selector, &json!({ "matchExpressions": [{ "key": "v", "operator": "In", "values": ["1"] }] }));
    let affinity = &pod["spec"]["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0];
    let added = &affinity["podAffinityTerm"]["labelSelector"]["matchExpressions"][1];
    assert_eq!(added, &json!({ "key": "v", "operator": "NotIn", "values": ["1"] }));
}

#[test]
fn annotations_of_a_new_pod_become_profiles_of_its_containers() {
    let kind = Registry::builtin().by_kind("v1", "Pod").unwrap();
    let named = |name: &str| format!("container.apparmor.security.beta.kubernetes.io/{name}");
    let own = json!({ "name": "own", "securityContext": { "appArmorProfile": { "type": "Unconfined" } } });
    let mut pod = json!({
        "metadata": { "name": "p", "annotations": {
            named("a"): "runtime/default", named("b"): "localhost/web", named("c"): "unconfined", named("d"): "localhost/", named("own"): "runtime/default",
        } },
        "spec": {
            "securityContext": { "appArmorProfile": { "type": "Unconfined" } },
            "initContainers": [{ "name": "a" }],
            "containers": [{ "name": "b", "securityContext": { "runAsUser": 1 } }, { "name": "c" }, { "name": "d" }, own],
        },
    });
    let containers = |pod: &serde_json::Value| {
        [&pod["spec"]["initContainers"][0], &pod["spec"]["containers"][0]].map(|c| c["securityContext"].clone())
    };
    let windows = json!({ "name": "windows" });
    let mut elsewhere = pod.clone();
    elsewhere["spec"]["os"] = windows;
    kind.prepare_create(&mut elsewhere);
    assert_eq!(elsewhere["spec"]["initContainers"], pod["spec"]["initContainers"]);
    kind.prepare_create(&mut pod);
    let web = json!({ "runAsUser": 1, "appArmorProfile": { "type": "Localhost", "localhostProfile": "web" } });
    assert_eq!(containers(&pod), [json!({ "appArmorProfile": { "type": "RuntimeDefault" } }), web]);
    let rest = &pod["spec"]["containers"];
    assert!(rest[1].get("securityContext").is_none(), "the pod says it");
    assert!(rest[2].get("securityContext").is_none(), "no profile is named");
    assert_eq!(rest[3]["securityContext"]["appArmorProfile"]["type"], "Unconfined", "fields win");
}

#[test]
fn an_autoscaler() {
    let target = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" });
    let plain = json!({ "spec": { "maxReplicas": 3, "scaleTargetRef": target, "behavior": { "scaleUp": { "selectPolicy": "Min" } } } });
    let full = defaulted("autoscaling/v2", "HorizontalPodAutoscaler", plain);
    let percent = json!({ "type": "Percent", "value": 100, "periodSeconds": 15 });
    let pods = json!({ "type": "Pods", "value": 4, "periodSeconds": 15 });
    let cpu = json!({ "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 80 } });
    let wanted = json!({
        "maxReplicas": 3, "minReplicas": 1, "scaleTargetRef": target,
        "metrics": [{ "type": "Resource", "resource": cpu }],
        "behavior": {
            "scaleUp": { "stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [pods, percent] },
            "scaleDown": { "selectPolicy": "Max", "policies": [percent] },
        },
    });
    assert_eq!(full["spec"], wanted);
}
