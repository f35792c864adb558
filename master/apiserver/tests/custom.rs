//! Custom kinds and quotas over HTTP. No controllers run here: their part is done by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{CONFIG_MAPS, Server, config_map, open, server};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const FOOS: &str = "/apis/example.com/v1/namespaces/default/foos";

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "foos.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "plural": "foos", "kind": "Foo" },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                    "spec": { "type": "object", "properties": { "size": { "type": "integer", "default": 2 } } },
                } } },
            }],
        },
    })
}

/// What the controller does.
async fn established(server: &Server) -> Value {
    let mut made = server.call("POST", DEFINITIONS, &definition()).await.expect(201);
    assert_eq!(made["spec"]["names"]["listKind"], "FooList");
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    server.get(FOOS).await;
    made["status"]["acceptedNames"] = made["spec"]["names"].clone();
    made["status"]["conditions"] =
        json!([{ "type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": "" }]);
    server.call("PUT", &format!("{DEFINITIONS}/foos.example.com/status"), &made).await.expect(200)
}

fn foo(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "example.com/v1", "kind": "Foo", "metadata": { "name": name }, "spec": spec })
}

#[tokio::test]
async fn a_kind_is_there_once_it_is_established() {
    let server = server().await;
    assert_eq!(server.get(FOOS).await.code, 404);
    established(&server).await;
    let made = server.call("POST", FOOS, &foo("a", json!({}))).await.expect(201);
    assert_eq!((&made["spec"]["size"], &made["metadata"]["generation"]), (&json!(2), &json!(1)));
    let refused = server.call("POST", FOOS, &foo("b", json!({ "size": "x" }))).await.expect(422);
    let wanted = "Foo.example.com \"b\" is invalid: spec.size: Invalid value: \"string\": spec.size in body must be of type \
                  integer: \"string\"";
    assert_eq!(refused["message"], wanted);
    let strict = server.call("POST", &format!("{FOOS}?fieldValidation=Strict"), &foo("b", json!({ "sise": 1 }))).await;
    assert!(
        strict.expect(400)["message"].as_str().unwrap().ends_with("strict decoding error: unknown field \"spec.sise\"")
    );
    let patch = r#"{"spec":{"size":3}}"#;
    let path = format!("{FOOS}/a");
    let patched = server.typed("PATCH", &path, "application/merge-patch+json", patch).await.expect(200);
    assert_eq!(patched["metadata"]["generation"], 2);
    server.typed("PATCH", &path, "application/strategic-merge-patch+json", patch).await.expect(415);
    let groups = server.get("/apis/example.com/v1").await.expect(200);
    assert_eq!(groups["resources"][0]["kind"], "Foo");
    let shown = server.get("/openapi/v3/apis/example.com/v1").await.expect(200);
    let schema = &shown["components"]["schemas"]["com.example.v1.Foo"];
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["default"], 2);
    let old = server.get("/openapi/v2").await.expect(200);
    assert!(old["definitions"]["com.example.v1.FooList"].is_object());
}

#[tokio::test]
async fn a_watch_sees_custom_resources_and_a_restart_keeps_them() {
    let server = server().await;
    established(&server).await;
    let mut watch = server.watch(&format!("{FOOS}?watch=1")).await;
    server.call("POST", FOOS, &foo("a", json!({}))).await.expect(201);
    assert_eq!(watch.seen().await, "ADDED a");
    drop(watch);
    let Server { api, folder } = server;
    drop(api);
    // The store's thread ends with the last handle.
    let api = loop {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| open(&folder))) {
            Ok(api) => break api,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    };
    let server = Server { api, folder };
    let list = server.get(FOOS).await.expect(200);
    assert_eq!((&list["kind"], &list["items"][0]["spec"]["size"]), (&json!("FooList"), &json!(2)));
}

#[tokio::test]
async fn a_deleted_definition_waits_for_its_resources() {
    let server = server().await;
    established(&server).await;
    server.call("POST", FOOS, &foo("a", json!({}))).await.expect(201);
    let going = server.delete(&format!("{DEFINITIONS}/foos.example.com")).await.expect(200);
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    let refused = server.call("POST", FOOS, &foo("b", json!({}))).await.expect(405);
    assert_eq!(refused["message"], "create not allowed while custom resource definition is terminating");
    server.get(&format!("{FOOS}/a")).await.expect(200);
    let path = format!("{DEFINITIONS}/foos.example.com");
    let released = r#"{"metadata":{"finalizers":null}}"#;
    server.typed("PATCH", &path, "application/merge-patch+json", released).await.expect(200);
    assert_eq!(server.get(FOOS).await.code, 404);
}

#[tokio::test]
async fn a_quota_counts_what_comes() {
    let server = server().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let hard = json!({ "count/configmaps": "1" });
    let quota =
        json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q" }, "spec": { "hard": hard } });
    let mut made = server.call("POST", quotas, &quota).await.expect(201);
    made["status"] = json!({ "hard": hard, "used": { "count/configmaps": "0" } });
    server.call("PUT", &format!("{quotas}/q/status"), &made).await.expect(200);
    server.call("POST", &format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a")).await.expect(201);
    server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(201);
    assert_eq!(server.get(&format!("{quotas}/q")).await.expect(200)["status"]["used"]["count/configmaps"], "1");
    let refused = server.call("POST", CONFIG_MAPS, &config_map("b")).await.expect(403);
    let wanted = "configmaps \"b\" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=1, \
                  limited: count/configmaps=1";
    assert_eq!(refused["message"], wanted);
}
