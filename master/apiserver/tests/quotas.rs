//! ResourceQuotas: what is charged, and what is taken back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use common::https::Https;
use common::{CONFIG_MAPS, Server, config_map, server};
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

/// Makes a quota, with the status that its controller would give it.
async fn bounded(server: &Server, name: &str, hard: Value) {
    let quota =
        json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": name }, "spec": { "hard": hard } });
    let mut made = server.call("POST", QUOTAS, &quota).await.expect(201);
    let none: serde_json::Map<String, Value> =
        hard.as_object().unwrap().keys().map(|name| (name.clone(), "0".into())).collect();
    made["status"] = json!({ "hard": hard, "used": none });
    server.call("PUT", &format!("{QUOTAS}/{name}/status"), &made).await.expect(200);
}

async fn used(server: &Server, quota: &str, name: &str) -> Value {
    server.get(&format!("{QUOTAS}/{quota}")).await.expect(200)["status"]["used"][name].clone()
}

#[tokio::test]
async fn a_quota_counts_what_comes() {
    let server = server().await;
    bounded(&server, "q", json!({ "count/configmaps": "1" })).await;
    server.call("POST", &format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a")).await.expect(201);
    server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(201);
    assert_eq!(used(&server, "q", "count/configmaps").await, "1");
    let refused = server.call("POST", CONFIG_MAPS, &config_map("b")).await.expect(403);
    let wanted = "configmaps \"b\" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=1, \
                  limited: count/configmaps=1";
    assert_eq!(refused["message"], wanted);
}

#[tokio::test]
async fn what_one_quota_refuses_is_charged_to_none() {
    let server = server().await;
    for (name, most) in [("a", "5"), ("b", "0"), ("c", "5")] {
        bounded(&server, name, json!({ "count/configmaps": most })).await;
    }
    for _ in 0..3 {
        let refused = server.call("POST", CONFIG_MAPS, &config_map("x")).await.expect(403);
        assert!(refused["message"].as_str().unwrap().contains("exceeded quota: b"), "{refused}");
    }
    for quota in ["a", "b", "c"] {
        assert_eq!(used(&server, quota, "count/configmaps").await, "0", "{quota}");
    }
}

/// Makes a kind `Foo` with two versions, of which something converts the second.
async fn converted(server: &Server, client: Value) {
    let version = |name: &str, storage: bool| {
        json!({ "name": name, "served": true, "storage": storage,
            "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } })
    };
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "foos.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "kind": "Foo", "plural": "foos", "singular": "foo", "listKind": "FooList" },
            "versions": [version("v1", true), version("v2", false)],
            "conversion": { "strategy": "Webhook", "webhook": { "clientConfig": client, "conversionReviewVersions": ["v1"] } },
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut made = server.call("POST", definitions, &definition).await.expect(201);
    made["status"] = json!({
        "acceptedNames": made["spec"]["names"], "storedVersions": ["v1"],
        "conditions": [
            { "type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "", "lastTransitionTime": null },
            { "type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": "", "lastTransitionTime": null },
        ],
    });
    server.call("PUT", &format!("{definitions}/foos.example.com/status"), &made).await.expect(200);
}

#[tokio::test]
async fn a_charge_is_taken_back_when_nothing_comes_of_the_write() {
    let server = server().await;
    // Nobody listens where its objects would be converted.
    converted(&server, json!({ "url": "https://127.0.0.1:1/convert", "caBundle": "" })).await;
    bounded(&server, "q", json!({ "count/foos.example.com": "1" })).await;
    for (version, code) in [("v2", 500), ("v2", 500), ("v1", 201), ("v1", 403)] {
        let path = format!("/apis/example.com/{version}/namespaces/default/foos");
        let name = format!("foo-{code}");
        let foo =
            json!({ "apiVersion": format!("example.com/{version}"), "kind": "Foo", "metadata": { "name": name } });
        let asked = server.call("POST", &path, &foo).await;
        let wanted = if code == 201 { "1" } else { "0" };
        let refused = asked.expect(code);
        if code != 403 {
            assert_eq!(used(&server, "q", "count/foos.example.com").await, wanted, "{refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_charge_is_taken_back_when_its_client_has_gone() {
    let server = server().await;
    let ((asked, mut is_asked), (may, go)) = (unbounded_channel(), mpsc::channel::<()>());
    let go = Arc::new(Mutex::new(go));
    let webhook = Https::start("127.0.0.1", move |_, _| {
        asked.send(()).unwrap();
        tokio::task::block_in_place(|| go.lock().unwrap().recv().unwrap());
        Response::new(Full::new(Bytes::from("no review")))
    });
    let webhook = webhook.await;
    let client = json!({ "url": format!("https://127.0.0.1:{}/convert", webhook.port), "caBundle": webhook.bundle });
    converted(&server, client).await;
    bounded(&server, "q", json!({ "count/foos.example.com": "1" })).await;
    let foo = json!({ "apiVersion": "example.com/v2", "kind": "Foo", "metadata": { "name": "a" } });
    tokio::select! {
        answer = server.call("POST", "/apis/example.com/v2/namespaces/default/foos", &foo) => panic!("{}", answer.text),
        _ = is_asked.recv() => {}
    }
    assert_eq!(used(&server, "q", "count/foos.example.com").await, "1");
    may.send(()).unwrap();
    while used(&server, "q", "count/foos.example.com").await != "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
