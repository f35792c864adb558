//! Admission webhooks, asked over real TLS on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use common::https::Https;
use common::{CONFIG_MAPS, PODS, Server, config_map, pod, server, with_service_account};
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A webhook that refuses ConfigMaps called `bad`, labels others, and remembers what it was asked.
struct Webhook {
    port: u16,
    bundle: String,
    asked: Arc<Mutex<Vec<Value>>>,
    handshakes: Arc<AtomicUsize>,
}

fn answer(review: &Value) -> Value {
    let request = &review["request"];
    let mut response = json!({ "uid": request["uid"], "allowed": true, "warnings": ["seen"] });
    if request["name"] == "bad" {
        response["allowed"] = false.into();
        response["status"] = json!({ "message": "it is bad", "code": 403, "reason": "Forbidden" });
    } else if request["object"]["metadata"]["labels"].is_null() && request["operation"] != "DELETE" {
        let patch = r#"[{"op":"add","path":"/metadata/labels","value":{"webhook":"was-here"}}]"#;
        response["patch"] = STANDARD.encode(patch).into();
        response["patchType"] = "JSONPatch".into();
    }
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
}

impl Webhook {
    async fn start() -> Self {
        Self::named("127.0.0.1").await
    }

    /// One whose certificate is for `name`.
    async fn named(name: &str) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let server = Https::start(name, move |_, body| {
            let review: Value = serde_json::from_slice(body).unwrap();
            let answer = answer(&review);
            seen.lock().unwrap().push(review);
            Response::new(Full::new(Bytes::from(answer.to_string())))
        });
        let Https { port, bundle, handshakes } = server.await;
        Webhook { port, bundle, asked, handshakes }
    }

    fn configuration(&self, kind: &str, more: Value) -> Value {
        let mut hook = json!({
            "name": "hook.keelson.test",
            "rules": [{ "operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"] }],
            "clientConfig": { "url": format!("https://127.0.0.1:{}/review", self.port), "caBundle": self.bundle },
            "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 5,
        });
        hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": "test" },
            "webhooks": [hook],
        })
    }

    fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

async fn configure(server: &Server, path: &str, configuration: &Value) {
    server.call("POST", path, configuration).await.expect(201);
}

#[tokio::test]
async fn a_validating_webhook_is_asked_and_may_refuse() {
    let (server, webhook) = (server().await, Webhook::start().await);
    configure(&server, VALIDATING, &webhook.configuration("ValidatingWebhookConfiguration", json!({}))).await;
    let made = server.call("POST", CONFIG_MAPS, &config_map("good")).await;
    assert_eq!(made.headers["warning"], "299 - \"seen\"");
    made.expect(201);
    let asked = webhook.asked();
    let request = &asked[0]["request"];
    assert_eq!(request["kind"], json!({ "group": "", "version": "v1", "kind": "ConfigMap" }));
    assert_eq!((&request["operation"], &request["namespace"]), (&json!("CREATE"), &json!("default")));
    assert_eq!(request["userInfo"]["username"], "admin");
    let refused = server.call("POST", CONFIG_MAPS, &config_map("bad")).await.expect(403);
    assert_eq!(refused["message"], "admission webhook \"hook.keelson.test\" denied the request: it is bad");
    assert_eq!(refused["reason"], "Forbidden");
    webhook.asked();
    server.delete(&format!("{CONFIG_MAPS}/good")).await.expect(200);
    let asked = webhook.asked();
    assert_eq!((&asked[0]["request"]["operation"], &asked[0]["request"]["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(asked[0]["request"]["oldObject"]["metadata"]["name"], "good");
}

#[tokio::test]
async fn connections_are_kept_until_the_configuration_changes() {
    let (server, webhook) = (server().await, Webhook::start().await);
    let write = async |name: &str| server.call("POST", CONFIG_MAPS, &config_map(name)).await.expect(201);
    let handshakes = || webhook.handshakes.load(Ordering::SeqCst);
    configure(&server, VALIDATING, &webhook.configuration("ValidatingWebhookConfiguration", json!({}))).await;
    // Other webhooks at the same place have the same connections.
    configure(&server, MUTATING, &webhook.configuration("MutatingWebhookConfiguration", json!({}))).await;
    for name in ["a", "b", "c"] {
        write(name).await;
    }
    assert_eq!((webhook.asked().len(), handshakes()), (6, 1));
    for path in [VALIDATING, MUTATING] {
        server.delete(&format!("{path}/test")).await.expect(200);
    }
    configure(&server, VALIDATING, &webhook.configuration("ValidatingWebhookConfiguration", json!({}))).await;
    write("d").await;
    write("e").await;
    assert_eq!((webhook.asked().len(), handshakes()), (2, 2));
    // Who is believed no more is not asked through what was opened before.
    let other = Webhook::start().await;
    let believed =
        format!(r#"[{{"op":"replace","path":"/webhooks/0/clientConfig/caBundle","value":"{}"}}]"#, other.bundle);
    let path = format!("{VALIDATING}/test");
    server.typed("PATCH", &path, "application/json-patch+json", &believed).await.expect(200);
    let refused = server.call("POST", CONFIG_MAPS, &config_map("f")).await.expect(500);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("?timeout=5s\": tls: "), "{message}");
    assert_eq!(handshakes(), 2);
}

#[tokio::test]
async fn a_mutating_webhook_changes_what_is_stored() {
    let (server, webhook) = (server().await, Webhook::start().await);
    let conditions =
        json!({ "matchConditions": [{ "name": "all-but-skipped", "expression": "object.metadata.name != 'skip'" }] });
    configure(&server, MUTATING, &webhook.configuration("MutatingWebhookConfiguration", conditions)).await;
    let made = server.call("POST", CONFIG_MAPS, &config_map("good")).await.expect(201);
    assert_eq!(made["metadata"]["labels"], json!({ "webhook": "was-here" }));
    let skipped = server.call("POST", CONFIG_MAPS, &config_map("skip")).await.expect(201);
    assert_eq!(skipped["metadata"]["labels"], Value::Null);
    assert_eq!(webhook.asked().len(), 1);
}

#[tokio::test]
async fn a_namespace_lies_in_itself() {
    let (server, webhook) = (server().await, Webhook::start().await);
    let rules =
        json!([{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["namespaces"] }]);
    for (path, kind) in [(VALIDATING, "ValidatingWebhookConfiguration"), (MUTATING, "MutatingWebhookConfiguration")] {
        configure(&server, path, &webhook.configuration(kind, json!({ "rules": rules }))).await;
    }
    let namespace = json!({ "kind": "Namespace", "apiVersion": "v1", "metadata": { "name": "x" } });
    server.call("POST", "/api/v1/namespaces", &namespace).await.expect(201);
    let asked = webhook.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|review| review["request"]["namespace"] == "x" && review["request"]["name"] == "x"));
}

#[tokio::test]
async fn a_mutating_webhook_is_asked_about_a_scale() {
    let (server, webhook) = (server().await, Webhook::start().await);
    let rules = json!({ "rules": [{
        "operations": ["UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["replicationcontrollers/scale"],
    }] });
    configure(&server, MUTATING, &webhook.configuration("MutatingWebhookConfiguration", rules)).await;
    let controllers = "/api/v1/namespaces/default/replicationcontrollers";
    let spec = pod("x")["spec"].clone();
    let controller = json!({
        "kind": "ReplicationController", "apiVersion": "v1", "metadata": { "name": "x" },
        "spec": { "replicas": 1, "template": { "metadata": { "labels": { "app": "x" } }, "spec": spec } },
    });
    server.call("POST", controllers, &controller).await.expect(201);
    let patch = r#"{"spec":{"replicas":2}}"#;
    let path = format!("{controllers}/x/scale");
    let scaled = server.typed("PATCH", &path, "application/merge-patch+json", patch).await;
    assert_eq!(scaled.headers["warning"], "299 - \"seen\"");
    assert_eq!(scaled.expect(200)["spec"]["replicas"], 2);
    let asked = webhook.asked();
    let request = &asked[0]["request"];
    assert_eq!(request["kind"], json!({ "group": "autoscaling", "version": "v1", "kind": "Scale" }));
    assert_eq!((&request["object"]["kind"], &request["subResource"]), (&json!("Scale"), &json!("scale")));
    let replicas = |object: &str| request[object]["spec"]["replicas"].as_i64();
    assert_eq!((replicas("object"), replicas("oldObject")), (Some(2), Some(1)));
}

#[tokio::test]
async fn a_deletion_is_told_of_and_may_be_refused_by_those_that_mutate_too() {
    let (server, webhook) = (server().await, Webhook::start().await);
    for name in ["good", "bad"] {
        server.call("POST", CONFIG_MAPS, &config_map(name)).await.expect(201);
    }
    configure(&server, MUTATING, &webhook.configuration("MutatingWebhookConfiguration", json!({}))).await;
    let refused = server.delete(&format!("{CONFIG_MAPS}/bad")).await.expect(403);
    assert_eq!(refused["message"], "admission webhook \"hook.keelson.test\" denied the request: it is bad");
    let gone = server.delete(&format!("{CONFIG_MAPS}/good")).await;
    assert_eq!(gone.headers["warning"], "299 - \"seen\"");
    gone.expect(200);
    let everything = webhook.configuration(
        "ValidatingWebhookConfiguration",
        json!({
            "rules": [{ "operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"] }],
            "clientConfig": { "url": "https://127.0.0.1:1/x" },
        }),
    );
    configure(&server, VALIDATING, &everything).await;
    // Nobody is asked about the configurations themselves.
    for path in [VALIDATING, MUTATING] {
        server.delete(&format!("{path}/test")).await.expect(200);
    }
}

#[tokio::test]
async fn selectors_failures_and_dry_runs() {
    let (server, webhook) = (server().await, Webhook::start().await);
    let gone = json!({ "clientConfig": { "url": "https://127.0.0.1:1/x" }, "failurePolicy": "Fail",
        "objectSelector": { "matchLabels": { "watch": "me" } } });
    configure(&server, VALIDATING, &webhook.configuration("ValidatingWebhookConfiguration", gone)).await;
    server.call("POST", CONFIG_MAPS, &config_map("unselected")).await.expect(201);
    let mut selected = config_map("selected");
    selected["metadata"]["labels"] = json!({ "watch": "me" });
    let refused = server.call("POST", CONFIG_MAPS, &selected).await.expect(500);
    let message = refused["message"].as_str().unwrap();
    let wanted = "Internal error occurred: failed calling webhook \"hook.keelson.test\": failed to call webhook: Post \
                  \"https://127.0.0.1:1/x?timeout=5s\": dial tcp 127.0.0.1:1: ";
    assert!(message.starts_with(wanted), "{message}");
    let path = format!("{VALIDATING}/test");
    let ignore = r#"[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"}]"#;
    server.typed("PATCH", &path, "application/json-patch+json", ignore).await.expect(200);
    server.call("POST", CONFIG_MAPS, &selected).await.expect(201);
}

#[tokio::test]
async fn a_webhook_may_be_behind_an_external_name() {
    let (server, webhook) = (server().await, Webhook::named("hook.default.svc").await);
    let service =
        json!({ "metadata": { "name": "hook" }, "spec": { "type": "ExternalName", "externalName": "127.0.0.1" } });
    server.call("POST", "/api/v1/namespaces/default/services", &service).await.expect(201);
    let client = json!({ "service": { "namespace": "default", "name": "hook", "port": webhook.port }, "caBundle": webhook.bundle });
    let configuration = webhook.configuration("MutatingWebhookConfiguration", json!({ "clientConfig": client }));
    configure(&server, MUTATING, &configuration).await;
    let made = server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(201);
    assert_eq!(made["metadata"]["labels"]["webhook"], "was-here");
}

#[tokio::test]
async fn a_configuration_is_validated() {
    let (server, webhook) = (server().await, Webhook::start().await);
    let wrong = json!({ "name": "short", "sideEffects": "Some", "timeoutSeconds": 31, "admissionReviewVersions": [],
        "matchConditions": [{ "name": "", "expression": "object.(" }] });
    let refused =
        server.call("POST", VALIDATING, &webhook.configuration("ValidatingWebhookConfiguration", wrong)).await;
    let message = refused.expect(422)["message"].as_str().unwrap().to_owned();
    for words in [
        "webhooks[0].name: Invalid value: \"short\": should be a domain with at least three segments separated by dots",
        "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
        "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
        "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
        "webhooks[0].matchConditions[0].expression: Invalid value: \"object.(\": compilation failed",
    ] {
        assert!(message.contains(words), "{words}\n{message}");
    }
}

#[tokio::test]
async fn webhooks_see_what_the_client_wishes_beside_the_object() {
    let (server, webhook) = (server().await, Webhook::start().await);
    configure(&server, VALIDATING, &webhook.configuration("ValidatingWebhookConfiguration", json!({}))).await;
    let options = || webhook.asked().pop().unwrap()["request"]["options"].clone();
    let path = format!("{CONFIG_MAPS}/a");
    let shown = |kind: &str, more: Value| {
        let mut shown = json!({ "kind": kind, "apiVersion": "meta.k8s.io/v1" });
        shown.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        shown
    };
    server.call("POST", &format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a")).await.expect(201);
    assert_eq!(options(), shown("CreateOptions", json!({ "dryRun": ["All"] })));
    let asked = "fieldManager=me&fieldValidation=Strict";
    let wishes = json!({ "fieldManager": "me", "fieldValidation": "Strict" });
    server.call("POST", &format!("{CONFIG_MAPS}?{asked}"), &config_map("a")).await.expect(201);
    assert_eq!(options(), shown("CreateOptions", wishes.clone()));
    let patch = r#"{"data":{"key":"other"}}"#;
    server.typed("PATCH", &format!("{path}?{asked}"), "application/merge-patch+json", patch).await.expect(200);
    assert_eq!(options(), shown("UpdateOptions", wishes));
    let wishes = json!({ "gracePeriodSeconds": 7, "propagationPolicy": "Orphan", "dryRun": ["All"] });
    server.call("DELETE", &path, &wishes).await.expect(200);
    assert_eq!(options(), shown("DeleteOptions", wishes));
    server.delete(&path).await.expect(200);
    assert_eq!(options(), shown("DeleteOptions", json!({})));
}

/// A webhook that says that it was asked, and answers when it may.
async fn waiting(server: &Server, more: Value) -> (UnboundedReceiver<()>, mpsc::Sender<()>) {
    let ((asked, is_asked), (may, go)) = (unbounded_channel(), mpsc::channel());
    let go = Arc::new(Mutex::new(go));
    let hook = Https::start("127.0.0.1", move |_, body| {
        let review: Value = serde_json::from_slice(body).unwrap();
        asked.send(()).unwrap();
        tokio::task::block_in_place(|| go.lock().unwrap().recv().unwrap());
        let response = json!({ "uid": review["request"]["uid"], "allowed": true });
        let answer = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response });
        Response::new(Full::new(Bytes::from(answer.to_string())))
    });
    let Https { port, bundle, .. } = hook.await;
    let webhook = Webhook { port, bundle, asked: Arc::default(), handshakes: Arc::default() };
    configure(server, VALIDATING, &webhook.configuration("ValidatingWebhookConfiguration", more)).await;
    (is_asked, may)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_comes_into_a_namespace_that_goes_while_a_webhook_is_asked() {
    let server = server().await;
    let (mut asked, may) = waiting(&server, json!({})).await;
    for (name, is_gone) in [("goes", false), ("gone", true), ("stays", false)] {
        let namespace = json!({ "kind": "Namespace", "apiVersion": "v1", "metadata": { "name": name } });
        server.call("POST", "/api/v1/namespaces", &namespace).await.expect(201);
        let (path, config_maps) =
            (format!("/api/v1/namespaces/{name}"), format!("/api/v1/namespaces/{name}/configmaps"));
        let object = config_map("late");
        let change = async {
            asked.recv().await.unwrap();
            if name == "stays" {
                let labels = r#"{"metadata":{"labels":{"a":"b"}}}"#;
                server.typed("PATCH", &path, "application/merge-patch+json", labels).await.expect(200);
            } else {
                let mut going = server.delete(&path).await.expect(200);
                if is_gone {
                    going["spec"]["finalizers"] = json!([]);
                    server.call("PUT", &format!("{path}/finalize"), &going).await.expect(200);
                }
            }
            may.send(()).unwrap();
        };
        let (made, ()) = tokio::join!(server.call("POST", &config_maps, &object), change);
        match name {
            "stays" => drop(made.expect(201)),
            "gone" => assert_eq!(made.expect(404)["message"], "namespaces \"gone\" not found"),
            _ => {
                let refused = made.expect(403);
                assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating", "{refused}");
            }
        }
        let left = server.get(&config_maps).await.expect(200);
        assert_eq!(left["items"].as_array().unwrap().len(), usize::from(name == "stays"), "{left}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pod_is_spared_by_its_budget_only_as_it_was_judged() {
    let server = server().await;
    with_service_account(&server).await;
    let deletes = json!({ "rules": [{
        "operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
    }] });
    let (mut asked, may) = waiting(&server, deletes).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({
        "kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "metadata": { "name": "x" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "x" } } },
    });
    server.call("POST", budgets, &budget).await.expect(201);
    let merge = async |path: &str, patch: Value| {
        server.typed("PATCH", path, "application/merge-patch+json", &patch.to_string()).await.expect(200)
    };
    let status = json!({ "observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 2 });
    merge(&format!("{budgets}/x/status"), json!({ "status": status })).await;
    for (name, phase, why) in [
        ("unready", "Running", "The disruption budget x is still being processed by the server."),
        ("pending", "Pending", "The disruption budget x needs 1 healthy pods and has 1 currently"),
    ] {
        let mut pod = pod(name);
        pod["metadata"]["labels"] = json!({ "app": "x" });
        server.call("POST", PODS, &pod).await.expect(201);
        let status = format!("{PODS}/{name}/status");
        merge(&status, json!({ "status": { "phase": phase } })).await;
        let eviction = json!({ "kind": "Eviction", "apiVersion": "policy/v1", "metadata": { "name": name } });
        let path = format!("{PODS}/{name}/eviction");
        let becomes_ready = async {
            asked.recv().await.unwrap();
            let ready = json!([{ "type": "Ready", "status": "True" }]);
            merge(&status, json!({ "status": { "phase": "Running", "conditions": ready } })).await;
            may.send(()).unwrap();
        };
        let (evicted, ()) = tokio::join!(server.call("POST", &path, &eviction), becomes_ready);
        assert_eq!(evicted.expect(429)["details"]["causes"][0]["message"], why, "{name}");
        assert!(server.get(&format!("{PODS}/{name}")).await.expect(200)["metadata"]["deletionTimestamp"].is_null());
    }
}
