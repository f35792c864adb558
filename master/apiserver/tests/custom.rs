//! Custom kinds and quotas over HTTP. No controllers run here: their part is done by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use common::https::Https;
use common::{Server, open, server};
use http::Response;
use http_body_util::Full;
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
    establish(server, &definition()).await
}

async fn establish(server: &Server, definition: &Value) -> Value {
    let mut made = server.call("POST", DEFINITIONS, definition).await.expect(201);
    assert_eq!(made["spec"]["names"]["listKind"], "FooList");
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    server.get(FOOS).await;
    made["status"]["acceptedNames"] = made["spec"]["names"].clone();
    made["status"]["conditions"] =
        json!([{ "type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": "" }]);
    let name = made["metadata"]["name"].as_str().unwrap();
    server.call("PUT", &format!("{DEFINITIONS}/{name}/status"), &made).await.expect(200)
}

fn foo(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "example.com/v1", "kind": "Foo", "metadata": { "name": name }, "spec": spec })
}

#[tokio::test]
async fn a_kind_is_there_once_it_is_established() {
    let server = server().await;
    assert_eq!(server.get(FOOS).await.code, 404);
    established(&server).await;
    let found = server.get("/apis/example.com/v1").await.expect(200);
    assert_eq!(found["resources"][0]["storageVersionHash"], "4XyhoHMtUhg=");
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
async fn a_watch_ends_with_the_schema_that_it_began_with() {
    let server = server().await;
    established(&server).await;
    let path = format!("{DEFINITIONS}/foos.example.com");
    let merge = async |patch: &str| {
        server.typed("PATCH", &path, "application/merge-patch+json", patch).await.expect(200);
    };
    let mut watch = server.watch(&format!("{FOOS}?watch=1")).await;
    server.call("POST", FOOS, &foo("a", json!({}))).await.expect(201);
    // What says nothing of the objects ends no watch.
    merge(r#"{"metadata":{"labels":{"a":"b"}}}"#).await;
    server.call("POST", FOOS, &foo("b", json!({}))).await.expect(201);
    assert_eq!((watch.seen().await.as_str(), watch.seen().await.as_str()), ("ADDED a", "ADDED b"));
    merge(
        r#"{"spec":{"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{
        "type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}"#,
    )
    .await;
    assert_eq!(watch.next().await, None);
    // Nor does the end of a definition, before that of its objects.
    let mut watch = server.watch(&format!("{FOOS}?watch=1")).await;
    assert_eq!((watch.seen().await.as_str(), watch.seen().await.as_str()), ("ADDED a", "ADDED b"));
    server.delete(&path).await.expect(200);
    server.delete(&format!("{FOOS}/a")).await.expect(200);
    server.delete(&format!("{FOOS}/b")).await.expect(200);
    merge(r#"{"metadata":{"finalizers":null}}"#).await;
    assert_eq!((watch.seen().await.as_str(), watch.seen().await.as_str()), ("DELETED a", "DELETED b"));
    assert_eq!(watch.next().await, None);
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
async fn a_custom_kind_of_a_built_in_kind_s_name_is_deleted_as_a_custom_kind() {
    let server = server().await;
    let mut definition = definition();
    definition["metadata"]["name"] = "services.example.com".into();
    definition["spec"]["names"]["plural"] = "services".into();
    establish(&server, &definition).await;
    let services = FOOS.replace("foos", "services");
    server.call("POST", &services, &foo("a", json!({}))).await.expect(201);
    let gone = server.delete(&format!("{services}/a")).await.expect(200);
    assert_eq!((&gone["kind"], &gone["status"]), (&json!("Status"), &json!("Success")));
}

/// Converts between `v1`, which has `hostPort`, and `v2`, which has `host` and `port`.
fn convert(review: &Value) -> Value {
    let request = &review["request"];
    let wanted = &request["desiredAPIVersion"];
    let objects: Vec<Value> = request["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| {
            let mut object = object.clone();
            let fields = object.as_object_mut().unwrap();
            if wanted == "example.com/v2" {
                let both = fields.remove("hostPort").unwrap_or_else(|| json!(""));
                let (host, port) = both.as_str().unwrap().split_once(':').unwrap_or_default();
                fields.extend([("host".to_owned(), json!(host)), ("port".to_owned(), json!(port))]);
            } else {
                let part = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
                let both = format!("{}:{}", part("host"), part("port"));
                fields.remove("host");
                fields.remove("port");
                fields.insert("hostPort".to_owned(), both.into());
            }
            object["apiVersion"] = wanted.clone();
            object
        })
        .collect();
    let response = json!({ "uid": request["uid"], "result": { "status": "Success" }, "convertedObjects": objects });
    json!({ "apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response })
}

/// `v1` and `v2`; the first or the second is stored.
fn versions(first: bool) -> Value {
    let text = json!({ "type": "string" });
    let version = |name: &str, storage: bool, fields: Value| {
        let selectable = if name == "v2" { json!([{ "jsonPath": ".host" }]) } else { json!([]) };
        json!({ "name": name, "served": true, "storage": storage, "selectableFields": selectable,
            "schema": { "openAPIV3Schema": { "type": "object", "properties": fields } } })
    };
    json!([
        version("v1", first, json!({ "hostPort": text })),
        version("v2", !first, json!({ "host": text, "port": text })),
    ])
}

/// A definition whose versions a webhook converts; tells how often it was asked.
async fn converted(server: &Server) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let webhook = Https::start("127.0.0.1", move |_, body| {
        count.fetch_add(1, Ordering::SeqCst);
        let review: Value = serde_json::from_slice(body).unwrap();
        Response::new(Full::new(Bytes::from(convert(&review).to_string())))
    });
    let webhook = webhook.await;
    let mut definition = definition();
    definition["spec"]["versions"] = versions(true);
    let client = json!({ "url": format!("https://127.0.0.1:{}/convert", webhook.port), "caBundle": webhook.bundle });
    definition["spec"]["conversion"] = json!({ "strategy": "Webhook", "webhook": { "clientConfig": client, "conversionReviewVersions": ["v1", "v1beta1"] } });
    establish(server, &definition).await;
    asked
}

fn host_port(name: &str, both: &str) -> Value {
    json!({ "apiVersion": "example.com/v1", "kind": "Foo", "metadata": { "name": name }, "hostPort": both })
}

#[tokio::test]
async fn a_webhook_converts_between_versions() {
    let server = server().await;
    let asked = converted(&server).await;
    server.call("POST", FOOS, &host_port("a", "localhost:80")).await.expect(201);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    let second = FOOS.replace("v1", "v2");
    let shown = server.get(&format!("{second}/a")).await.expect(200);
    assert_eq!((&shown["host"], &shown["port"], &shown["hostPort"]), (&json!("localhost"), &json!("80"), &Value::Null));
    let mut watch = server.watch(&format!("{second}?watch=1")).await;
    assert_eq!(watch.next().await.unwrap()["object"]["host"], "localhost");
    let patch = r#"{"port":"81"}"#;
    let path = format!("{second}/a");
    let patched = server.typed("PATCH", &path, "application/merge-patch+json", patch).await.expect(200);
    assert_eq!((&patched["port"], &patched["metadata"]["generation"]), (&json!("81"), &json!(2)));
    assert_eq!(server.get(&format!("{FOOS}/a")).await.expect(200)["hostPort"], "localhost:81");
    assert_eq!(watch.next().await.unwrap()["object"]["port"], "81");
    // What is stored in another version than what comes now is shown beside it.
    let other = json!({ "spec": { "versions": versions(false) } });
    let path = format!("{DEFINITIONS}/foos.example.com");
    server.typed("PATCH", &path, "application/merge-patch+json", &other.to_string()).await.expect(200);
    server.call("POST", FOOS, &host_port("b", "other:90")).await.expect(201);
    let before = asked.load(Ordering::SeqCst);
    for (path, field) in [(FOOS, "hostPort"), (second.as_str(), "host")] {
        let list = server.get(path).await.expect(200);
        let found: Vec<&Value> = list["items"].as_array().unwrap().iter().map(|item| &item[field]).collect();
        let wanted = if field == "host" { ["localhost", "other"] } else { ["localhost:81", "other:90"] };
        assert_eq!(found, wanted);
    }
    assert_eq!(asked.load(Ordering::SeqCst), before + 2);
    // What is stored in the other version is selected by its converted fields.
    let local = format!("{second}?fieldSelector=host%3Dlocalhost");
    let list = server.get(&local).await.expect(200);
    let names: Vec<&Value> = list["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["a"]);
    let mut watch = server.watch(&format!("{local}&watch=1")).await;
    assert_eq!(watch.seen().await, "ADDED a");
    let moved = r#"{"host":"elsewhere"}"#;
    server.typed("PATCH", &format!("{second}/a"), "application/merge-patch+json", moved).await.expect(200);
    let gone = watch.next().await.unwrap();
    assert_eq!((&gone["type"], &gone["object"]["host"]), (&json!("DELETED"), &json!("localhost")));
    server.delete(&local).await.expect(200);
    assert_eq!(server.get(&second).await.expect(200)["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn of_many_large_objects_some_are_converted_at_once() {
    let server = server().await;
    let asked = converted(&server).await;
    let large = "x".repeat(1_500_000);
    for name in ["a", "b", "c", "d", "e"] {
        server.call("POST", FOOS, &host_port(name, &format!("{name}:{large}"))).await.expect(201);
    }
    let list = server.get(&FOOS.replace("v1", "v2")).await.expect(200);
    let hosts: Vec<&Value> = list["items"].as_array().unwrap().iter().map(|item| &item["host"]).collect();
    assert_eq!(hosts, ["a", "b", "c", "d", "e"]);
    assert_eq!(list["items"][4]["port"], large);
    assert_eq!(asked.load(Ordering::SeqCst), 3, "two at once");
}
