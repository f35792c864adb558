//! Who may do what, paths that are not there, discovery, and the addresses and ports of Services.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod common;

use auth::{UserInfo, names};
use common::{CONFIG_MAPS, server};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: &Value) -> Value {
    json!({ "kind": "Service", "apiVersion": "v1", "metadata": { "name": name }, "spec": spec })
}

#[tokio::test]
async fn a_user_without_rights_is_told_what_he_may_not() {
    let server = server().await;
    let user = UserInfo::new("jane", &[names::ALL_AUTHENTICATED]);
    let request = Request::builder().uri(CONFIG_MAPS).body(Full::default()).unwrap();
    let response = server.raw(user, request).await;
    assert_eq!(response.status(), 403);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(
        status["message"],
        "configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(status["reason"], "Forbidden");
}

#[tokio::test]
async fn an_impersonation_that_cannot_be_read_is_refused() {
    let server = server().await;
    let act = async |user: &[u8]| {
        let user = http::HeaderValue::from_bytes(user).unwrap();
        let request =
            Request::builder().uri(CONFIG_MAPS).header("impersonate-user", user).body(Full::default()).unwrap();
        server.raw(common::admin(), request).await.status()
    };
    // He is nobody here, whatever his sender may.
    assert_eq!(act("j\u{f6}rg".as_bytes()).await, 403);
    assert_eq!(act(b"j\xf6rg").await, 400);
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there() {
    let server = server().await;
    for path in ["/api/v1/unicorns", "/apis/none/v1/pods", "/api/v1/namespaces/default/nodes", "/nothing"] {
        assert_eq!(server.get(path).await.code, 404, "{path}");
    }
    let refused = server.call("PUT", CONFIG_MAPS, &json!({})).await.expect(405);
    assert_eq!(refused["reason"], "MethodNotAllowed");
    server.call("POST", "/api/v1/configmaps", &json!({})).await.expect(405);
}

#[tokio::test]
async fn nothing_is_created_at_a_name() {
    let server = server().await;
    // The right to create one name would be a right to create them all.
    let body = json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": "other" } });
    let refused = server.call("POST", &format!("{CONFIG_MAPS}/named"), &body).await.expect(405);
    assert_eq!(refused["reason"], "MethodNotAllowed");
    let space = json!({ "kind": "Namespace", "apiVersion": "v1", "metadata": { "name": "other" } });
    server.call("POST", "/api/v1/namespaces/named", &space).await.expect(405);
    for path in [format!("{CONFIG_MAPS}/other"), "/api/v1/namespaces/other".to_owned()] {
        assert_eq!(server.get(&path).await.code, 404, "{path}");
    }
    let jane = UserInfo::new("jane", &[names::ALL_AUTHENTICATED]);
    let request = Request::builder().method("POST").uri(format!("{CONFIG_MAPS}/named"));
    let request = request.body(Full::from(body.to_string())).unwrap();
    assert_eq!(server.raw(jane, request).await.status(), 403);
}

#[tokio::test]
async fn a_snapshot_is_for_who_may_do_everything() {
    let server = server().await;
    let request = || Request::builder().uri(apiserver::SNAPSHOT_PATH).body(Full::default()).unwrap();
    // The paths of everything that is no resource are not enough: Secrets are in it.
    for group in [names::ALL_AUTHENTICATED, "system:monitoring"] {
        let user = UserInfo::new("jane", &[group, names::ALL_AUTHENTICATED]);
        assert_eq!(server.raw(user, request()).await.status(), 403, "{group}");
    }
    let response = server.raw(common::admin(), request()).await;
    assert_eq!(response.status(), 200);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let snapshot = store::Snapshot::decode(&bytes).unwrap();
    assert!(snapshot.records.iter().any(|record| record.key.as_str() == "/registry/namespaces/kube-system"));
}

#[tokio::test]
async fn discovery_lists_every_kind() {
    let server = server().await;
    let core = server.get("/api/v1").await.expect(200);
    let find = |name: &str| core["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).cloned();
    assert_eq!(find("pods").unwrap()["shortNames"], json!(["po"]));
    assert!(find("pods/log").is_some() && find("nodes").unwrap()["namespaced"] == false);
    // As a stock API server has it.
    assert_eq!(find("pods").unwrap()["storageVersionHash"], "xPOwRZ+Yhw8=");
    assert!(find("pods/status").unwrap()["storageVersionHash"].is_null());
    assert!(find("bindings").unwrap()["storageVersionHash"].is_null());
    let events = server.get("/apis/events.k8s.io/v1").await.expect(200);
    assert_eq!(events["resources"][0]["storageVersionHash"], find("events").unwrap()["storageVersionHash"]);
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let all = server.accepting("/apis", accept).await;
    assert!(all.headers["content-type"].to_str().unwrap().contains("as=APIGroupDiscoveryList"));
    assert!(all.json()["items"].as_array().unwrap().iter().any(|g| g["metadata"]["name"] == "apps"));
    assert_eq!(server.get("/version").await.expect(200)["gitVersion"], "v1.36.3+keelson");
    assert_eq!(server.get("/readyz").await.text, "ok");
    assert!(server.get("/openapi/v3").await.expect(200)["paths"]["api/v1"]["serverRelativeURL"].is_string());
}

#[tokio::test]
async fn services_get_addresses_and_ports_of_their_own() {
    let server = server().await;
    let kubernetes = server.get(&format!("{SERVICES}/kubernetes")).await.expect(200);
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
    let spec = json!({ "type": "NodePort", "selector": { "a": "b" }, "ports": [{ "port": 80 }] });
    let made = server.call("POST", SERVICES, &service("a", &spec)).await.expect(201);
    let (ip, port) = (&made["spec"]["clusterIP"], &made["spec"]["ports"][0]["nodePort"]);
    assert!(ip.as_str().unwrap().starts_with("10.96.0."));
    let taken = json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": port }] });
    let refused = server.call("POST", SERVICES, &service("b", &taken)).await.expect(422);
    let expected = format!(
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: {port}: provided port is already allocated"
    );
    assert_eq!(refused["message"], expected);
    let taken = json!({ "clusterIP": ip, "ports": [{ "port": 80 }] });
    let refused = server.call("POST", SERVICES, &service("b", &taken)).await.expect(422);
    assert!(refused["message"].as_str().unwrap().ends_with("provided IP is already allocated"), "{refused}");
    server.delete(&format!("{SERVICES}/a")).await.expect(200);
    server.call("POST", SERVICES, &service("b", &taken)).await.expect(201);
}

#[tokio::test]
async fn both_event_apis_show_the_same_events() {
    let server = server().await;
    let event = json!({
        "kind": "Event", "apiVersion": "v1", "metadata": { "name": "e" }, "reason": "Started", "type": "Normal",
        "involvedObject": { "kind": "Pod", "name": "p", "namespace": "default" }, "message": "hello",
    });
    server.call("POST", "/api/v1/namespaces/default/events", &event).await.expect(201);
    let other = server.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.expect(200);
    assert_eq!((&other["note"], &other["regarding"]["name"]), (&json!("hello"), &json!("p")));
    let query = "/apis/events.k8s.io/v1/namespaces/default/events?fieldSelector=reason%3DStarted";
    assert_eq!(server.get(query).await.expect(200)["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn proxies_lead_to_agents_and_pods_only() {
    let server = server().await;
    let node = json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": "n1" }, "status": {
        "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
    } });
    server.call("POST", "/api/v1/nodes", &node).await.expect(201);
    for name in ["n1:9100", "http:n1:9100", "n1"] {
        let refused = server.get(&format!("/api/v1/nodes/{name}/proxy/")).await.expect(400);
        assert_eq!(refused["message"], "address not allowed", "{name}");
    }
    let refused = server.get("/api/v1/nodes/ftp:n1:9100/proxy/").await.expect(400);
    assert_eq!(refused["message"], "invalid node request \"ftp:n1:9100\"");
    // Whoever writes Endpoints says nothing of where pods are.
    server.call("POST", SERVICES, &service("s", &json!({ "ports": [{ "port": 80 }] }))).await.expect(201);
    let endpoints = json!({ "kind": "Endpoints", "apiVersion": "v1", "metadata": { "name": "s" }, "subsets": [
        { "addresses": [{ "ip": "192.0.2.200" }], "ports": [{ "port": 80 }] },
    ] });
    server.call("POST", "/api/v1/namespaces/default/endpoints", &endpoints).await.expect(201);
    let refused = server.get(&format!("{SERVICES}/s:80/proxy/")).await.expect(503);
    assert_eq!(refused["message"], "no endpoints available for service \"s\"");
}
