//! Server-side apply and the owners of fields, over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Answer, CONFIG_MAPS, Server, config_map, server};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

const APPLY: &str = "application/apply-patch+yaml";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn apply(server: &Server, path: &str, config: &Value) -> Answer {
    server.typed("PATCH", path, APPLY, &config.to_string()).await
}

fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    entries
        .iter()
        .map(|e| {
            format!("{} {} {}", text(e, "manager"), text(e, "operation"), text(e, "subresource")).trim().to_owned()
        })
        .collect()
}

fn deployment(replicas: Option<i64>) -> Value {
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" },
        "spec": {
            "selector": { "matchLabels": { "app": "d" } },
            "template": {
                "metadata": { "labels": { "app": "d" } },
                "spec": { "containers": [{ "name": "main", "image": "x" }] },
            },
        },
    });
    if let Some(replicas) = replicas {
        deployment["spec"]["replicas"] = replicas.into();
    }
    deployment
}

#[tokio::test]
async fn an_apply_creates_changes_and_is_quiet_when_nothing_changes() {
    let server = server().await;
    let path = format!("{CONFIG_MAPS}/c?fieldManager=me");
    let made = apply(&server, &path, &config_map("c")).await.expect(201);
    assert_eq!((made["data"]["key"].as_str(), owners(&made)), (Some("value"), vec!["me Apply".to_owned()]));
    let same = apply(&server, &path, &config_map("c")).await.expect(200);
    assert_eq!(same, made);
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {other: \"1\"}\n";
    let changed = server.typed("PATCH", &path, APPLY, yaml).await.expect(200);
    assert_eq!(changed["data"], json!({ "other": "1" }));
}

#[tokio::test]
async fn conflicts_are_answered_with_causes() {
    let server = server().await;
    apply(&server, &format!("{CONFIG_MAPS}/c?fieldManager=one"), &config_map("c")).await.expect(201);
    let mut other = config_map("c");
    other["data"]["key"] = "theirs".into();
    let path = format!("{CONFIG_MAPS}/c?fieldManager=two");
    let refused = apply(&server, &path, &other).await.expect(409);
    assert_eq!(refused["message"], "Apply failed with 1 conflict: conflict with \"one\": .data.key");
    assert_eq!(refused["reason"], "Conflict");
    let cause = json!({ "reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.key" });
    assert_eq!(refused["details"], json!({ "causes": [cause] }));
    let tried = apply(&server, &format!("{path}&force=true&dryRun=All"), &other).await.expect(200);
    assert_eq!(tried["data"]["key"], "theirs");
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/c")).await.json()["data"]["key"], "value");
    let forced = apply(&server, &format!("{path}&force=true"), &other).await.expect(200);
    assert_eq!((owners(&forced), &forced["data"]["key"]), (vec!["two Apply".to_owned()], &json!("theirs")));
}

#[tokio::test]
async fn options_are_checked() {
    let server = server().await;
    let path = format!("{CONFIG_MAPS}/c");
    let message = |answer: Value| answer["message"].as_str().unwrap().to_owned();
    let nameless = apply(&server, &path, &config_map("c")).await.expect(422);
    assert_eq!(
        message(nameless),
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let forced =
        server.typed("PATCH", &format!("{path}?force=true"), "application/merge-patch+json", "{}").await.expect(422);
    assert_eq!(
        message(forced),
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
    );
    let long = "x".repeat(129);
    let created =
        server.call("POST", &format!("{CONFIG_MAPS}?fieldManager={long}"), &config_map("c")).await.expect(422);
    assert_eq!(
        message(created),
        "CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes"
    );
    let other = apply(&server, &format!("{path}?fieldManager=m"), &config_map("d")).await.expect(400);
    assert_eq!(message(other), "the name of the object (d) does not match the name on the URL (c)");
    let unknown = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" }, "dta": {} });
    let unknown = apply(&server, &format!("{path}?fieldManager=m"), &unknown).await.expect(500);
    assert_eq!(
        message(unknown),
        "failed to create typed patch object (/c; /v1, Kind=ConfigMap): .dta: field not declared in schema"
    );
}

#[tokio::test]
async fn every_write_names_its_manager() {
    let server = server().await;
    let request = |method: &str, path: &str, content: &str, body: &Value| {
        Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content)
            .header("user-agent", "tool/v1 (linux)")
            .body(Full::from(body.to_string()))
            .unwrap()
    };
    let made = server.send(request("POST", CONFIG_MAPS, "application/json", &config_map("c"))).await.expect(201);
    assert_eq!(owners(&made), ["tool Update"]);
    let path = format!("{CONFIG_MAPS}/c");
    let patch = json!({ "data": { "key": "2" } });
    let merge = "application/merge-patch+json";
    let patched =
        server.typed("PATCH", &format!("{path}?fieldManager=hand"), merge, &patch.to_string()).await.expect(200);
    assert_eq!(owners(&patched), ["hand Update", "tool Update"]);
    let mut put = patched.clone();
    put["data"]["more"] = "1".into();
    put["metadata"].as_object_mut().unwrap().remove("managedFields");
    let put = server.send(request("PUT", &path, "application/json", &put)).await.expect(200);
    assert_eq!(owners(&put), ["hand Update", "tool Update"]);
    let mut forgotten = put;
    forgotten["metadata"]["managedFields"] = json!([]);
    let forgotten = server.send(request("PUT", &path, "application/json", &forgotten)).await.expect(200);
    assert_eq!(owners(&forgotten), [""; 0]);
}

#[tokio::test]
async fn status_and_scale_are_applied_through_their_subresources() {
    let server = server().await;
    apply(&server, &format!("{DEPLOYMENTS}/d?fieldManager=me"), &deployment(Some(2))).await.expect(201);
    let status = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" },
        "status": { "replicas": 2, "updatedReplicas": 2 }, "spec": { "replicas": 9 },
    });
    let after = apply(&server, &format!("{DEPLOYMENTS}/d/status?fieldManager=ctl"), &status).await.expect(200);
    assert_eq!((&after["status"]["updatedReplicas"], &after["spec"]["replicas"]), (&json!(2), &json!(2)));
    assert_eq!(owners(&after), ["ctl Apply status", "me Apply"]);
    apply(&server, &format!("{DEPLOYMENTS}/x/status?fieldManager=ctl"), &status).await.expect(404);

    let scale = |replicas: i64| {
        json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": { "name": "d", "namespace": "default" },
            "spec": { "replicas": replicas },
        })
    };
    let path = format!("{DEPLOYMENTS}/d/scale?fieldManager=hpa");
    let refused = apply(&server, &path, &scale(5)).await.expect(409);
    assert_eq!(refused["message"], "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas");
    let scaled = apply(&server, &format!("{path}&force=true"), &scale(5)).await.expect(200);
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(5)));
    let now = server.get(&format!("{DEPLOYMENTS}/d")).await.json();
    assert_eq!(owners(&now), ["ctl Apply status", "hpa Apply scale", "me Apply"]);
    // Whoever gives a field up that another owns does not change it.
    let rest = apply(&server, &format!("{DEPLOYMENTS}/d?fieldManager=me"), &deployment(None)).await.expect(200);
    assert_eq!(rest["spec"]["replicas"], 5);
}

#[tokio::test]
async fn a_key_that_is_there_twice_is_named_with_its_line() {
    let server = server().await;
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  a: one\n  a: two\n";
    let path = format!("{CONFIG_MAPS}/c?fieldManager=m");
    let refused = server.typed("PATCH", &format!("{path}&fieldValidation=Strict"), APPLY, text).await.expect(400);
    let wanted = "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 6: key \"a\" already \
                  set in map";
    assert_eq!(refused["message"], wanted);
    let warned = server.typed("PATCH", &path, APPLY, text).await;
    assert!(warned.headers["warning"].to_str().unwrap().contains("line 6: key \\\"a\\\" already set in map"));
    assert_eq!(warned.expect(201)["data"]["a"], "two");
}
