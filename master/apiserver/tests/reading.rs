//! Lists and watches: selectors, pages, revisions, tables, bookmarks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod common;

use common::{CONFIG_MAPS, PODS, Server, config_map, pod, server, with_service_account};
use http::Request;
use serde_json::{Value, json};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

async fn labelled(server: &Server, name: &str, tier: &str) -> Value {
    let mut object = config_map(name);
    object["metadata"]["labels"] = json!({ "tier": tier });
    server.call("POST", CONFIG_MAPS, &object).await.expect(201)
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn selectors() {
    let server = server().await;
    for (name, tier) in [("a", "one"), ("b", "two")] {
        labelled(&server, name, tier).await;
    }
    let list = server.get(CONFIG_MAPS).await.expect(200);
    assert_eq!((list["kind"].as_str(), names(&list)), (Some("ConfigMapList"), vec!["a", "b"]));
    assert!(list["items"][0].get("kind").is_none(), "items carry no type");
    for (query, expected) in [
        ("labelSelector=tier%3Done", vec!["a"]),
        ("labelSelector=tier%20in%20(one%2Ctwo)%2C!x", vec!["a", "b"]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=metadata.name!%3Db", vec!["a"]),
    ] {
        let list = server.get(&format!("{CONFIG_MAPS}?{query}")).await.expect(200);
        assert_eq!(names(&list), expected, "{query}");
    }
    server.get(&format!("{CONFIG_MAPS}?labelSelector=a%20b")).await.expect(400);
    let refused = server.get(&format!("{CONFIG_MAPS}?fieldSelector=data.x%3D1")).await.expect(400);
    assert_eq!(refused["message"], "field label not supported: data.x");
}

#[tokio::test]
async fn pages_show_one_state() {
    let server = server().await;
    for name in ["a", "b", "c", "d"] {
        server.call("POST", CONFIG_MAPS, &config_map(name)).await.expect(201);
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200);
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(2)));
    server.delete(&format!("{CONFIG_MAPS}/c")).await.expect(200);
    server.call("POST", CONFIG_MAPS, &config_map("bb")).await.expect(201);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["c", "d"], "as it was at the first page");
    assert!(second["metadata"].get("continue").is_none());
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = format!("{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=Exact");
    assert_eq!(names(&server.get(&exact).await.expect(200)), ["a", "b", "c", "d"]);
    assert_eq!(names(&server.get(CONFIG_MAPS).await.expect(200)), ["a", "b", "bb", "d"]);
    server.get(&format!("{CONFIG_MAPS}?continue=nonsense")).await.expect(400);
    let ahead = server.get(&format!("{CONFIG_MAPS}?resourceVersion=999999")).await.expect(504);
    assert_eq!(ahead["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    server.get(&format!("{CONFIG_MAPS}?resourceVersion=x")).await.expect(400);
    server.get(&format!("{CONFIG_MAPS}?resourceVersionMatch=Exact")).await.expect(422);
}

#[tokio::test]
async fn tables_and_metadata_only() {
    let server = server().await;
    server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(201);
    let table = server.accepting(CONFIG_MAPS, TABLE).await.expect(200);
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let one = server.accepting(&format!("{CONFIG_MAPS}/a"), TABLE).await.expect(200);
    assert_eq!(one["rows"].as_array().unwrap().len(), 1);
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = server.accepting(CONFIG_MAPS, partial).await.expect(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert!(list["items"][0].get("data").is_none());
    // An answer is no object that there are columns of.
    let review = json!({ "spec": { "nonResourceAttributes": { "path": "/", "verb": "get" } } });
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let ask = async |accept: &str| {
        let request = Request::builder().method("POST").uri(reviews).header("accept", accept);
        server.send(request.body(review.to_string().into()).unwrap()).await
    };
    assert_eq!(ask("application/json;as=Table;v=v1;g=meta.k8s.io").await.expect(406)["reason"], "NotAcceptable");
    assert_eq!(ask(TABLE).await.expect(201)["status"]["allowed"], true);
}

#[tokio::test]
async fn a_watch_shows_the_state_then_changes() {
    let server = server().await;
    labelled(&server, "a", "one").await;
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion=0")).await;
    assert_eq!(watch.seen().await, "ADDED a");
    labelled(&server, "b", "one").await;
    assert_eq!(watch.seen().await, "ADDED b");
    let gone = server.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let event = watch.next().await.unwrap();
    assert_eq!((event["type"].as_str(), gone["status"].as_str()), (Some("DELETED"), Some("Success")));
    let list = server.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(event["object"]["metadata"]["resourceVersion"], list["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_watch_resumes_and_selects() {
    let server = server().await;
    let made = labelled(&server, "a", "one").await;
    let from = made["metadata"]["resourceVersion"].as_str().unwrap();
    for tier in ["two", "one", "one"] {
        let patch = json!({ "metadata": { "labels": { "tier": tier } }, "data": { "at": tier } }).to_string();
        server.typed("PATCH", &format!("{CONFIG_MAPS}/a"), "application/merge-patch+json", &patch).await.expect(200);
    }
    let patch = r#"{"data":{"at":"end"}}"#;
    server.typed("PATCH", &format!("{CONFIG_MAPS}/a"), "application/merge-patch+json", patch).await.expect(200);
    let query = format!("watch=1&resourceVersion={from}&labelSelector=tier%3Done");
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(watch.seen().await, "DELETED a");
    assert_eq!(watch.seen().await, "ADDED a");
    assert_eq!(watch.seen().await, "MODIFIED a");
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = server().await;
    labelled(&server, "a", "one").await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(watch.seen().await, "ADDED a");
    let end = watch.next().await.unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    server.get(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true")).await.expect(422);
}

#[tokio::test]
async fn watches_get_bookmarks_and_end() {
    let server = server().await;
    // Only now: commits come from a thread that paused time would not wait for.
    tokio::time::pause();
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion=1&allowWatchBookmarks=true&timeoutSeconds=90");
    let mut watch = server.watch(&path).await;
    assert_eq!(watch.next().await.unwrap()["type"], "BOOKMARK");
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn kube_takes_the_transport() {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, ListParams, PostParams};
    let server = server().await;
    let client = kube::Client::new(server.api.in_process(common::admin(), "test"), "default");
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let object: ConfigMap = serde_json::from_value(config_map("a")).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 1);
    let missing = api.get("b").await.unwrap_err();
    assert!(matches!(missing, kube::Error::Api(status) if status.code == 404));
}

#[tokio::test]
async fn a_pod_without_a_node_has_said_nothing() {
    let server = server().await;
    with_service_account(&server).await;
    server.call("POST", PODS, &pod("a")).await.expect(201);
    let logs = server.get(&format!("{PODS}/a/log")).await;
    assert_eq!((logs.code, logs.text.as_str()), (204, ""));
    let refused = server.get(&format!("{PODS}/a/log?container=x")).await.expect(400);
    assert_eq!(refused["message"], "container x is not valid for pod a");
    server.get(&format!("{PODS}/none/log")).await.expect(404);
}

#[tokio::test]
async fn paths_that_ask_for_a_watch() {
    let server = server().await;
    for name in ["a", "b"] {
        labelled(&server, name, "one").await;
    }
    let mut one = server.watch("/api/v1/watch/namespaces/default/configmaps/b").await;
    let mut all = server.watch("/api/v1/watch/namespaces/default/configmaps?labelSelector=tier%3Done").await;
    let mut namespace = server.watch("/api/v1/watch/namespaces/default").await;
    assert_eq!((one.seen().await.as_str(), all.seen().await.as_str()), ("ADDED b", "ADDED a"));
    assert_eq!(namespace.seen().await, "ADDED default");
    server.call("POST", "/api/v1/watch/namespaces/default/configmaps", &config_map("c")).await.expect(405);
    // What names one object is no watch without.
    let one = server.get(&format!("{CONFIG_MAPS}/a?watch=true")).await.expect(200);
    assert_eq!(one["kind"], "ConfigMap");
}
