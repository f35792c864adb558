//! What a client may send that is larger than it looks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{CONFIG_MAPS, Server, config_map, server};
use serde_json::{Value, json};

const JSON_PATCH: &str = "application/json-patch+json";
const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";

/// The one built-in kind that holds anything.
fn revision(name: &str, data: Value) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": { "name": name }, "revision": 1, "data": data })
}

fn chain(levels: usize) -> Value {
    (0..levels).fold(json!({}), |inner, _| json!({ "a": inner }))
}

async fn patched(server: &Server, path: &str, operations: &[Value]) -> (u16, String) {
    let answer = server.typed("PATCH", path, JSON_PATCH, &Value::from(operations.to_vec()).to_string()).await;
    (answer.code, answer.json()["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_patch_does_not_double_an_object_until_memory_ends() {
    let server = server().await;
    server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(201);
    let copies: Vec<Value> =
        (0..60).map(|n| json!({ "op": "copy", "from": "/data", "path": format!("/data/k{n}") })).collect();
    let (code, message) = patched(&server, &format!("{CONFIG_MAPS}/a"), &copies).await;
    assert_eq!(code, 422);
    assert!(message.contains("Unable to complete the copy, the accumulated size increase of copy is"), "{message}");
}

#[tokio::test]
async fn what_is_taken_can_be_read_again() {
    let server = server().await;
    for levels in [50, 90, 98] {
        let made = server.call("POST", REVISIONS, &revision(&format!("r{levels}"), chain(levels))).await;
        made.expect(201);
        server.get(&format!("{REVISIONS}/r{levels}")).await.expect(200);
        server.get(REVISIONS).await.expect(200);
    }
    for levels in [110, 120] {
        let refused = server.call("POST", REVISIONS, &revision("deep", chain(levels))).await.expect(400);
        assert!(refused["message"].as_str().unwrap().ends_with("exceeded max depth"), "{refused}");
    }
    // Nor does an object become so by a patch.
    let deeper = json!({ "op": "add", "path": format!("/data{}/b", "/a".repeat(90)), "value": chain(20) });
    let (code, message) = patched(&server, &format!("{REVISIONS}/r90"), &[deeper]).await;
    assert_eq!((code, message.contains("nests deeper than 100 levels")), (422, true), "{message}");
    server.get(REVISIONS).await.expect(200);
}

#[tokio::test]
async fn of_many_wrong_fields_the_first_are_told() {
    let server = server().await;
    let long = "k".repeat(10_000);
    let twice = r#""x":1,"#.repeat(20_000);
    let body =
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a","{long}":{{{twice}"x":1}}}}}}"#);
    let made = server.typed("POST", CONFIG_MAPS, "application/json", &body).await;
    let told: usize = made.headers.get_all("warning").iter().map(http::HeaderValue::len).sum();
    assert!(told > 0 && told < 10_000, "{told}");
    made.expect(201);
    let strict = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    let refused = server.typed("POST", &strict, "application/json", &body).await;
    assert_eq!(refused.code, 400);
    assert!(refused.text.len() < 3_000_000, "{}", refused.text.len());
}

#[tokio::test]
async fn a_dry_run_that_nobody_knows_deletes_nothing() {
    let server = server().await;
    server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["Some"] });
    let refused = server.call("DELETE", &path, &options).await.expect(422);
    assert_eq!(refused["details"]["causes"][0]["field"], "dryRun");
    server.get(&path).await.expect(200);
}
