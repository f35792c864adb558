//! What clients are told beside an answer, over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Answer, PODS, pod, server, with_service_account};
use serde_json::{Value, json};

const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const OLD_LABEL: &str = "299 - \"spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \\\"kubernetes.io/os\\\" instead\"";

fn told(answer: &Answer) -> Vec<&str> {
    assert!(matches!(answer.code, 200 | 201), "{}", answer.text);
    answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect()
}

fn deployment(image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" },
        "spec": {
            "selector": { "matchLabels": { "app": "d" } },
            "template": {
                "metadata": { "labels": { "app": "d" } },
                "spec": {
                    "nodeSelector": { "beta.kubernetes.io/os": "linux" },
                    "containers": [{ "name": "main", "image": image }],
                },
            },
        },
    })
}

#[tokio::test]
async fn writes_tell_of_what_they_change() {
    let server = server().await;
    let one = format!("{DEPLOYMENTS}/d");
    let tried = server.call("POST", &format!("{DEPLOYMENTS}?dryRun=All"), &deployment("a")).await;
    assert_eq!(told(&tried), [OLD_LABEL]);
    assert_eq!(told(&server.call("POST", DEPLOYMENTS, &deployment("a")).await), [OLD_LABEL]);
    assert_eq!(told(&server.call("PUT", &one, &deployment("a")).await), [""; 0]);
    assert_eq!(told(&server.call("PUT", &format!("{one}?dryRun=All"), &deployment("b")).await), [OLD_LABEL]);
    assert_eq!(told(&server.call("PUT", &one, &deployment("b")).await), [OLD_LABEL]);
    let labels = json!({ "metadata": { "labels": { "a": "b" } } }).to_string();
    assert_eq!(told(&server.typed("PATCH", &one, MERGE, &labels).await), [""; 0]);
    let replicas = json!({ "spec": { "replicas": 2 } }).to_string();
    assert_eq!(told(&server.typed("PATCH", &format!("{one}/scale"), MERGE, &replicas).await), [OLD_LABEL]);
    let status = json!({ "status": { "replicas": 2 } }).to_string();
    assert_eq!(told(&server.typed("PATCH", &format!("{one}/status"), MERGE, &status).await), [""; 0]);
    assert_eq!(told(&server.get(&one).await), [""; 0]);
}

#[tokio::test]
async fn applies_tell_of_what_they_change() {
    let server = server().await;
    let path = format!("{DEPLOYMENTS}/d?fieldManager=me");
    for (image, expected) in [("a", vec![OLD_LABEL]), ("a", Vec::new()), ("b", vec![OLD_LABEL])] {
        let answer = server.typed("PATCH", &path, APPLY, &deployment(image).to_string()).await;
        assert_eq!(told(&answer), expected, "{image}");
    }
}

#[tokio::test]
async fn only_valid_objects_are_told_of() {
    let server = server().await;
    with_service_account(&server).await;
    let mut bad = pod("a.b");
    bad["spec"]["containers"][0]["image"] = "".into();
    let refused = server.call("POST", PODS, &bad).await;
    assert_eq!((refused.code, refused.headers.get("warning")), (422, None));
    let made = server.call("POST", PODS, &pod("a.b")).await;
    assert!(matches!(told(&made).as_slice(), [one] if one.contains("a DNS label is recommended")), "{:?}", told(&made));
}

#[tokio::test]
async fn every_request_tells_of_a_deprecated_version() {
    let server = server().await;
    let text = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    let path = "/api/v1/namespaces/default/endpoints";
    let endpoints = json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "e" } });
    assert_eq!(told(&server.call("POST", path, &endpoints).await), [text]);
    assert_eq!(told(&server.get(path).await), [text]);
    assert_eq!(told(&server.get(&format!("{path}/e")).await), [text]);
    assert_eq!(told(&server.delete(&format!("{path}/e")).await), [text]);
    assert_eq!(told(&server.get("/apis/discovery.k8s.io/v1/endpointslices").await), [""; 0]);
}
