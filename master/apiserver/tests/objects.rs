//! Create, get, update, patch, delete: codes, texts and metadata as upstream's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod common;

use common::{CONFIG_MAPS, PODS, config_map, pod, server, with_service_account};
use serde_json::json;

#[tokio::test]
async fn a_create_fills_the_metadata_and_a_second_one_conflicts() {
    let server = server().await;
    let made = server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(201);
    assert_eq!(made["metadata"]["namespace"], "default");
    assert!(made["metadata"]["uid"].as_str().unwrap().len() == 36);
    assert!(made["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    let found = server.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    assert_eq!(found, made);
    let refused = server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(409);
    assert_eq!(refused["reason"], "AlreadyExists");
    assert_eq!(refused["message"], "configmaps \"a\" already exists");
    assert_eq!(refused["details"], json!({ "name": "a", "kind": "configmaps" }));
}

#[tokio::test]
async fn what_has_a_version_was_created_before() {
    let server = server().await;
    let versioned = |name: &str, version: &str| {
        let mut object = config_map(name);
        object["metadata"]["resourceVersion"] = version.into();
        object
    };
    let refused = server.call("POST", CONFIG_MAPS, &versioned("a", "7")).await.expect(500);
    assert_eq!(refused["message"], "resourceVersion should not be set on objects to be created");
    server.get(&format!("{CONFIG_MAPS}/a")).await.expect(404);
    server.call("POST", &format!("{CONFIG_MAPS}?dryRun=All"), &versioned("a", "7")).await.expect(201);
    for (name, version) in [("a", ""), ("b", "0")] {
        let made = server.call("POST", CONFIG_MAPS, &versioned(name, version)).await.expect(201);
        assert_ne!(made["metadata"]["resourceVersion"], version);
    }
    // An update that creates takes it for none.
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let lease = json!({ "kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": { "name": "l", "resourceVersion": "7" } });
    server.call("PUT", leases, &lease).await.expect(201);
}

#[tokio::test]
async fn names_are_generated() {
    let server = server().await;
    let mut object = config_map("x");
    object["metadata"] = json!({ "generateName": "job-" });
    let made = server.call("POST", CONFIG_MAPS, &object).await.expect(201);
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("job-") && name.len() == 9, "{name}");
    object["metadata"] = json!({});
    let refused = server.call("POST", CONFIG_MAPS, &object).await.expect(422);
    assert_eq!(refused["reason"], "Invalid");
    assert_eq!(refused["details"]["causes"][0]["field"], "metadata.name");
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let server = server().await;
    server.call("POST", &format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a")).await.expect(201);
    let missing = server.get(&format!("{CONFIG_MAPS}/a")).await.expect(404);
    assert_eq!(missing["message"], "configmaps \"a\" not found");
    server.call("POST", &format!("{CONFIG_MAPS}?dryRun=Some"), &config_map("a")).await.expect(422);
}

#[tokio::test]
async fn an_update_with_an_old_version_conflicts() {
    let server = server().await;
    let first = server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(201);
    let mut second = first.clone();
    second["data"]["key"] = "new".into();
    let path = format!("{CONFIG_MAPS}/a");
    let stored = server.call("PUT", &path, &second).await.expect(200);
    assert_ne!(stored["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let refused = server.call("PUT", &path, &second).await.expect(409);
    assert_eq!(refused["reason"], "Conflict");
    assert_eq!(
        refused["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    second["metadata"]["resourceVersion"] = "".into();
    let same = server.call("PUT", &path, &second).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], stored["metadata"]["resourceVersion"], "nothing changed");
    second["metadata"]["uid"] = "other".into();
    server.call("PUT", &path, &second).await.expect(409);
    second["metadata"]["name"] = "b".into();
    let refused = server.call("PUT", &path, &second).await.expect(400);
    assert_eq!(refused["message"], "the name of the object (b) does not match the name on the URL (a)");
}

#[tokio::test]
async fn the_three_patches() {
    let server = server().await;
    server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let json = r#"[{"op":"add","path":"/data/two","value":"2"}]"#;
    let patched = server.typed("PATCH", &path, "application/json-patch+json", json).await.expect(200);
    assert_eq!(patched["data"], json!({ "key": "value", "two": "2" }));
    let merge = r#"{"data":{"key":null}}"#;
    let patched = server.typed("PATCH", &path, "application/merge-patch+json", merge).await.expect(200);
    assert_eq!(patched["data"], json!({ "two": "2" }));
    let strategic = r#"{"metadata":{"labels":{"a":"b"}}}"#;
    let patched = server.typed("PATCH", &path, "application/strategic-merge-patch+json", strategic).await.expect(200);
    assert_eq!(patched["metadata"]["labels"], json!({ "a": "b" }));
    let missing = r#"[{"op":"test","path":"/data/two","value":"3"}]"#;
    server.typed("PATCH", &path, "application/json-patch+json", missing).await.expect(422);
    server.typed("PATCH", &path, "application/json", "{}").await.expect(415);
    server.typed("PATCH", &path, "application/merge-patch+json", "[]").await.expect(400);
    let stale = r#"{"metadata":{"resourceVersion":"1"}}"#;
    server.typed("PATCH", &path, "application/merge-patch+json", stale).await.expect(409);
    server.typed("PATCH", &format!("{CONFIG_MAPS}/none"), "application/merge-patch+json", "{}").await.expect(404);
}

#[tokio::test]
async fn bad_bodies_are_named() {
    let server = server().await;
    let wrong = json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": "a" }, "data": 5 });
    let refused = server.call("POST", CONFIG_MAPS, &wrong).await.expect(400);
    let message = refused["message"].as_str().unwrap();
    assert!(message.starts_with("ConfigMap in version \"v1\" cannot be handled as a ConfigMap: "), "{message}");
    server.typed("POST", CONFIG_MAPS, "application/json", "{").await.expect(400);
    server.typed("POST", CONFIG_MAPS, "application/json", "").await.expect(400);
    server.typed("POST", CONFIG_MAPS, "text/html", "{}").await.expect(415);
    server.typed("POST", CONFIG_MAPS, "application/json", &" ".repeat(4 << 20)).await.expect(413);
    let pod = pod("a");
    server.call("POST", CONFIG_MAPS, &pod).await.expect(400);
    server.call("POST", "/api/v1/namespaces/other/configmaps", &config_map("a")).await.expect(404);
    let mut elsewhere = config_map("a");
    elsewhere["metadata"]["namespace"] = "kube-system".into();
    let refused = server.call("POST", CONFIG_MAPS, &elsewhere).await.expect(400);
    let text = "the namespace of the provided object does not match the namespace sent on the request";
    assert_eq!(refused["message"], text);
}

#[tokio::test]
async fn unknown_fields_warn_or_are_refused() {
    let server = server().await;
    let mut object = config_map("a");
    object["dota"] = json!({});
    let answer = server.call("POST", CONFIG_MAPS, &object).await;
    assert_eq!(answer.headers["warning"], "299 - \"unknown field \\\"dota\\\"\"");
    answer.expect(201);
    object["metadata"]["name"] = "b".into();
    let refused = server.call("POST", &format!("{CONFIG_MAPS}?fieldValidation=Strict"), &object).await.expect(400);
    assert!(refused["message"].as_str().unwrap().ends_with("strict decoding error: unknown field \"dota\""));
}

#[tokio::test]
async fn yaml_comes_in_and_goes_out() {
    let server = server().await;
    let text = "kind: ConfigMap\napiVersion: v1\nmetadata:\n  name: a\ndata:\n  key: value\n";
    server.typed("POST", CONFIG_MAPS, "application/yaml", text).await.expect(201);
    let answer = server.accepting(&format!("{CONFIG_MAPS}/a"), "application/yaml").await;
    assert_eq!(answer.headers["content-type"], "application/yaml");
    assert!(answer.text.contains("key: value"), "{}", answer.text);
    server.accepting(&format!("{CONFIG_MAPS}/a"), "text/html").await.expect(406);
}

#[tokio::test]
async fn finalizers_keep_an_object_until_they_are_gone() {
    let server = server().await;
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["example.com/keep"]);
    server.call("POST", CONFIG_MAPS, &object).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let marked = server.delete(&path).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let release = r#"{"metadata":{"finalizers":null}}"#;
    server.typed("PATCH", &path, "application/merge-patch+json", release).await.expect(200);
    server.get(&path).await.expect(404);
}

#[tokio::test]
async fn a_delete_tells_what_it_deleted_and_keeps_preconditions() {
    let server = server().await;
    let made = server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let other = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "preconditions": { "uid": "x" } });
    server.call("DELETE", &path, &other).await.expect(409);
    let gone = server.delete(&path).await.expect(200);
    assert_eq!(gone["status"], "Success");
    assert_eq!(gone["details"]["uid"], made["metadata"]["uid"]);
    server.delete(&path).await.expect(404);
    server.call("POST", CONFIG_MAPS, &config_map("b")).await.expect(201);
    let orphan = json!({ "propagationPolicy": "Orphan" });
    let marked = server.call("DELETE", &format!("{CONFIG_MAPS}/b"), &orphan).await.expect(200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["orphan"]));
}

#[tokio::test]
async fn some_kinds_are_answered_with_what_was_deleted() {
    let server = server().await;
    let (core, storage) = ("/api/v1", "/apis/storage.k8s.io/v1");
    let here = "/api/v1/namespaces/default";
    for (root, kind, plural, more) in [
        (here, "ResourceQuota", "resourcequotas", json!({})),
        (here, "PodTemplate", "podtemplates", json!({ "template": pod("x") })),
        (
            core,
            "PersistentVolume",
            "persistentvolumes",
            json!({ "spec": {
            "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "hostPath": { "path": "/tmp" },
        } }),
        ),
        (storage, "StorageClass", "storageclasses", json!({ "provisioner": "a/b" })),
        (storage, "CSIDriver", "csidrivers", json!({ "spec": {} })),
    ] {
        let version = root.strip_prefix("/apis/").unwrap_or("v1");
        let mut object = json!({ "kind": kind, "apiVersion": version, "metadata": { "name": "x" } });
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.call("POST", &format!("{root}/{plural}"), &object).await.expect(201);
        let path = format!("{root}/{plural}/x");
        let rehearsed = server.delete(&format!("{path}?dryRun=All")).await.expect(200);
        let mut gone = server.delete(&path).await.expect(200);
        if kind == "PersistentVolume" {
            let none = r#"{"metadata":{"finalizers":null}}"#;
            gone = server.typed("PATCH", &path, "application/merge-patch+json", none).await.expect(200);
        }
        assert_eq!((&rehearsed["kind"], &gone["kind"]), (&json!(kind), &json!(kind)));
        server.get(&path).await.expect(404);
    }
    server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(201);
    let rehearsed = server.delete(&format!("{CONFIG_MAPS}/a?dryRun=All")).await.expect(200);
    assert_eq!(rehearsed["kind"], "Status");
    server.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
}

#[tokio::test]
async fn a_pod_on_a_node_is_deleted_with_grace() {
    let server = server().await;
    with_service_account(&server).await;
    server.call("POST", PODS, &pod("free")).await.expect(201);
    server.delete(&format!("{PODS}/free")).await.expect(200);
    server.get(&format!("{PODS}/free")).await.expect(404);

    server.call("POST", PODS, &pod("bound")).await.expect(201);
    let path = format!("{PODS}/bound");
    let binding = json!({
        "kind": "Binding", "apiVersion": "v1", "metadata": { "name": "bound" },
        "target": { "kind": "Node", "name": "n1" },
    });
    server.call("POST", &format!("{path}/binding"), &binding).await.expect(201);
    server.call("POST", &format!("{path}/binding"), &binding).await.expect(409);
    let marked = server.delete(&path).await.expect(200);
    assert_eq!(marked["spec"]["nodeName"], "n1");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let again = server.delete(&path).await.expect(200);
    assert_eq!(again["metadata"], marked["metadata"], "no shorter grace, no change");
    server.delete(&format!("{path}?gracePeriodSeconds=0")).await.expect(200);
    server.get(&path).await.expect(404);
}

#[tokio::test]
async fn a_collection_is_deleted_by_label() {
    let server = server().await;
    for (name, tier) in [("a", "one"), ("b", "one"), ("c", "two")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({ "tier": tier });
        server.call("POST", CONFIG_MAPS, &object).await.expect(201);
    }
    let gone = server.delete(&format!("{CONFIG_MAPS}?labelSelector=tier%3Done")).await.expect(200);
    assert_eq!(gone["items"].as_array().unwrap().len(), 2);
    let left = server.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn acknowledged_writes_are_there_after_a_restart() {
    let server = server().await;
    let made = server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(201);
    let common::Server { api, folder } = server;
    drop(api);
    // The committer thread closes the file when the last handle is gone.
    let api = loop {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| common::open(&folder))) {
            Ok(api) => break api,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    };
    let server = common::Server { api, folder };
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.expect(200), made);
}

#[tokio::test]
async fn evictions_spend_what_the_budget_allows() {
    let server = server().await;
    with_service_account(&server).await;
    for name in ["a", "b"] {
        let mut pod = pod(name);
        pod["metadata"]["labels"] = json!({ "app": "x" });
        pod["metadata"]["finalizers"] = json!(["example.com/hold"]);
        server.call("POST", PODS, &pod).await.expect(201);
        let ready = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
        server
            .typed("PATCH", &format!("{PODS}/{name}/status"), "application/merge-patch+json", &ready.to_string())
            .await
            .expect(200);
    }
    const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({
        "kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "metadata": { "name": "x" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "x" } } },
    });
    server.call("POST", BUDGETS, &budget).await.expect(201);
    let evict = async |name: &str| {
        let eviction = json!({ "kind": "Eviction", "apiVersion": "policy/v1", "metadata": { "name": name } });
        server.call("POST", &format!("{PODS}/{name}/eviction"), &eviction).await
    };
    let early = evict("a").await.expect(429);
    assert_eq!(
        early["details"]["causes"][0]["message"],
        "The disruption budget x is still being processed by the server."
    );
    let status = json!({ "status": {
        "observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2,
    } });
    server
        .typed("PATCH", &format!("{BUDGETS}/x/status"), "application/merge-patch+json", &status.to_string())
        .await
        .expect(200);
    evict("a").await.expect(201);
    let left = server.get(&format!("{BUDGETS}/x")).await.json();
    assert_eq!(left["status"]["disruptionsAllowed"], 0);
    assert!(left["status"]["disruptedPods"]["a"].is_string());
    let evicted = server.get(&format!("{PODS}/a")).await.expect(200);
    assert!(evicted["metadata"]["deletionTimestamp"].is_string());
    let conditions = evicted["status"]["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|one| one["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&target["status"], &target["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")));
    assert_eq!(conditions.len(), 2);
    let refused = evict("b").await.expect(429);
    assert_eq!(refused["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    let why = "The disruption budget x does not allow evicting pods currently";
    assert_eq!(refused["details"]["causes"][0], json!({ "reason": "DisruptionBudget", "message": why }));
}

#[tokio::test]
async fn the_network_of_services_is_a_ready_object_also_after_a_restart() {
    const DEFAULT: &str = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes";
    let server = server().await;
    let made = server.get(DEFAULT).await.expect(200);
    assert_eq!(made["spec"]["cidrs"], json!(["10.96.0.0/24"]));
    let ready = &made["status"]["conditions"][0];
    assert_eq!((&ready["type"], &ready["status"]), (&json!("Ready"), &json!("True")));
    assert_eq!(ready["message"], "Kubernetes default Service CIDR is ready");
    server.api.bootstrap().await.unwrap();
    assert_eq!(server.get(DEFAULT).await.expect(200), made);
    // What an administrator says of it stays, and nobody says it in the object itself.
    let mut judged = made.clone();
    judged["status"]["conditions"][0]["status"] = "False".into();
    let kept = server.call("PUT", DEFAULT, &judged).await.expect(200);
    assert_eq!(kept["status"], made["status"]);
    judged["metadata"]["resourceVersion"] = kept["metadata"]["resourceVersion"].clone();
    server.call("PUT", &format!("{DEFAULT}/status"), &judged).await.expect(200);
    server.api.bootstrap().await.unwrap();
    assert_eq!(server.get(DEFAULT).await.expect(200)["status"]["conditions"][0]["status"], "False");
}

#[tokio::test]
async fn services_have_addresses_of_every_network_that_is_ready() {
    const CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";
    const SERVICES: &str = "/api/v1/namespaces/default/services";
    let server = server().await;
    let service = |name: &str, ip: &str| {
        let mut spec = json!({ "ports": [{ "port": 80 }] });
        if !ip.is_empty() {
            spec["clusterIP"] = ip.into();
        }
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec })
    };
    let refused = server.call("POST", SERVICES, &service("a", "10.97.0.7")).await.expect(422);
    let wanted = "Service \"a\" is invalid: spec.clusterIPs: Invalid value: [\"10.97.0.7\"]: failed to allocate IP 10.97.0.7: the \
                  provided network does not match the current range";
    assert_eq!(refused["message"], wanted);
    let more = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": "more" }, "spec": { "cidrs": ["10.97.0.0/24"] } });
    let mut more = server.call("POST", CIDRS, &more).await.expect(201);
    let ready = |status: &str| {
        json!({ "conditions": [{
            "type": "Ready", "status": status, "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }] })
    };
    more["status"] = ready("True");
    server.call("PUT", &format!("{CIDRS}/more/status"), &more).await.expect(200);
    server.call("POST", SERVICES, &service("a", "10.97.0.7")).await.expect(201);
    let mut default = server.get(&format!("{CIDRS}/kubernetes")).await.expect(200);
    default["status"] = ready("False");
    server.call("PUT", &format!("{CIDRS}/kubernetes/status"), &default).await.expect(200);
    let made = server.call("POST", SERVICES, &service("b", "")).await.expect(201);
    assert!(made["spec"]["clusterIP"].as_str().unwrap().starts_with("10.97.0."), "{made}");
    // The server starts nevertheless.
    server.api.bootstrap().await.unwrap();
}

#[tokio::test]
async fn load_balancers_have_a_port_to_ask_nodes_at() {
    let server = server().await;
    let spec = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{ "port": 80 }] });
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s" }, "spec": spec });
    let made = server.call("POST", "/api/v1/namespaces/default/services", &service).await.expect(201);
    let port = made["spec"]["healthCheckNodePort"].as_u64().unwrap();
    assert!((30_000..=30_010).contains(&port) && made["spec"]["ports"][0]["nodePort"] != port, "{made}");
    let path = "/api/v1/namespaces/default/services/s";
    let spread = r#"{"spec":{"externalTrafficPolicy":"Cluster"}}"#;
    let spread = server.typed("PATCH", path, "application/merge-patch+json", spread).await.expect(200);
    assert_eq!(spread["spec"].get("healthCheckNodePort"), None);
}

#[tokio::test]
async fn a_collection_is_deleted_page_by_page_where_the_client_asks_for_pages() {
    let server = server().await;
    for name in ["a", "b", "c"] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({ "paged": "yes" });
        server.call("POST", CONFIG_MAPS, &object).await.expect(201);
    }
    let all = format!("{CONFIG_MAPS}?labelSelector=paged%3Dyes");
    let names = |list: &serde_json::Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = server.delete(&format!("{all}&limit=1")).await.expect(200);
    assert_eq!(names(&first), ["a"]);
    let next = first["metadata"]["continue"].as_str().unwrap();
    assert_eq!(names(&server.get(&all).await.expect(200)), ["b", "c"]);
    let second = server.delete(&format!("{all}&limit=1&continue={next}")).await.expect(200);
    assert_eq!(names(&second), ["b"]);
    let rest = server.delete(&all).await.expect(200);
    assert_eq!((names(&rest), &rest["metadata"]["continue"]), (vec!["c".to_owned()], &serde_json::Value::Null));
}

#[tokio::test]
async fn an_owner_that_is_named_twice_is_kept_once() {
    let server = server().await;
    let owner = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u" });
    let twice = json!([owner, owner]);
    let mut object = config_map("a");
    object["metadata"]["ownerReferences"] = twice.clone();
    let kept = |answer: common::Answer, after: bool| {
        let warning = answer.headers["warning"].to_str().unwrap().to_owned();
        assert!(warning.contains("duplicate UID(s) observed: u"), "{warning}");
        assert_eq!(warning.contains("after mutating admission"), after, "{warning}");
        assert!([200, 201].contains(&answer.code), "{}", answer.text);
        assert_eq!(answer.json()["metadata"]["ownerReferences"], json!([owner]));
    };
    kept(server.call("POST", CONFIG_MAPS, &object).await, false);
    let path = format!("{CONFIG_MAPS}/a");
    kept(server.call("PUT", &path, &object).await, false);
    let patch = json!({ "metadata": { "ownerReferences": twice } }).to_string();
    kept(server.typed("PATCH", &path, "application/merge-patch+json", &patch).await, true);
}

#[tokio::test]
async fn a_dry_run_answers_with_the_version_that_it_would_replace() {
    let server = server().await;
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["x.io/y"]);
    let made = server.call("POST", CONFIG_MAPS, &object).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a?dryRun=All");
    let version = |answer: serde_json::Value| {
        assert_eq!(answer["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"], "{answer}");
        answer
    };
    object["data"]["key"] = "new".into();
    assert_eq!(version(server.call("PUT", &path, &object).await.expect(200))["data"]["key"], "new");
    let patch = r#"{"data":{"key":"newer"}}"#;
    version(server.typed("PATCH", &path, "application/merge-patch+json", patch).await.expect(200));
    let marked = version(server.delete(&path).await.expect(200));
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
}
