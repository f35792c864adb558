//! Another API server behind this one, over real TLS on loopback: who it is told asks, what clients see of it, and what
//! they are told when it is not there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::{Arc, Mutex};

use auth::UserInfo;
use bytes::Bytes;
use common::https::Https;
use common::{Server, server};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1alpha1.wardle.example.com";
const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";

/// A server of the group `wardle.example.com`, which remembers what it was asked.
struct Wardle {
    port: u16,
    bundle: String,
    asked: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

fn answer(path: &str) -> (u16, Value) {
    let flunder =
        json!({ "kind": "Flunder", "apiVersion": "wardle.example.com/v1alpha1", "metadata": { "name": "f" } });
    match path {
        "/apis/wardle.example.com/v1alpha1" => (
            200,
            json!({ "kind": "APIResourceList", "groupVersion": "wardle.example.com/v1alpha1", "resources": [
                { "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"] },
            ]}),
        ),
        "/openapi/v3" => (
            200,
            json!({ "paths": { "apis/wardle.example.com/v1alpha1": {
                "serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=A" } } }),
        ),
        "/openapi/v2" => (
            200,
            json!({ "swagger": "2.0", "paths": { "/apis/wardle.example.com/v1alpha1/flunders": {
                "get": { "responses": { "200": { "schema": { "$ref": "#/definitions/Flunder" } } } } } },
                "definitions": { "Flunder": { "type": "object" }, "Other": {} } }),
        ),
        "/openapi/v3/apis/wardle.example.com/v1alpha1" => (200, json!({ "openapi": "3.0.0" })),
        path if path.ends_with("/moved") => (302, Value::Null),
        path if path.starts_with(FLUNDERS) => (200, flunder),
        _ => (404, Value::Null),
    }
}

impl Wardle {
    async fn start() -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let server = Https::start("api.wardle.svc", move |head, _| {
            seen.lock().unwrap().push((head.uri.to_string(), head.headers.clone()));
            let (code, value) = answer(head.uri.path());
            let mut response = Response::builder().status(code).header("content-type", "application/json");
            if code == 302 {
                response = response.header("location", "https://elsewhere");
            }
            response.body(Full::new(Bytes::from(value.to_string()))).unwrap()
        });
        let Https { port, bundle, .. } = server.await;
        Wardle { port, bundle, asked }
    }

    fn asked(&self) -> Vec<(String, HeaderMap)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// Makes it known to a server, as one that can be asked.
    async fn register(&self, server: &Server, trust: Value) {
        let namespace = json!({ "metadata": { "name": "wardle" } });
        server.call("POST", "/api/v1/namespaces", &namespace).await.expect(201);
        let service =
            json!({ "metadata": { "name": "api" }, "spec": { "type": "ExternalName", "externalName": "127.0.0.1" } });
        server.call("POST", "/api/v1/namespaces/wardle/services", &service).await.expect(201);
        let mut spec = json!({
            "group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
            "service": { "namespace": "wardle", "name": "api", "port": self.port },
        });
        spec.as_object_mut().unwrap().extend(trust.as_object().unwrap().clone());
        let made = server.call("POST", API_SERVICES, &json!({ "metadata": { "name": NAME }, "spec": spec })).await;
        available(server, made.expect(201), "True").await;
    }
}

async fn available(server: &Server, mut object: Value, status: &str) {
    object["status"] = json!({ "conditions": [{ "type": "Available", "status": status }] });
    server.call("PUT", &format!("{API_SERVICES}/{NAME}/status"), &object).await.expect(200);
}

async fn as_user(server: &Server, user: UserInfo, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, String) {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = server.raw(user, request.body(Full::default()).unwrap()).await;
    let (head, body) = response.into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
    (head.status.as_u16(), head.headers, text)
}

#[tokio::test]
async fn requests_are_passed_on_with_who_sent_them() {
    let (server, wardle) = (server().await, Wardle::start().await);
    wardle.register(&server, json!({ "caBundle": wardle.bundle })).await;
    let mut user = UserInfo::new("jane", &["system:masters", "other"]);
    user.uid = "42".into();
    user.extra.insert("example.org/scope".into(), vec!["a".into()]);
    let path = format!("{FLUNDERS}/f?pretty=true");
    let forged = [("x-remote-user", "root"), ("authorization", "Bearer secret"), ("accept", "application/json")];
    let (code, _, text) = as_user(&server, user, &path, &forged).await;
    assert_eq!((code, text.contains("Flunder")), (200, true), "{text}");
    let asked = wardle.asked();
    let (uri, headers) = &asked[0];
    let all = |name: &str| -> Vec<&str> { headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect() };
    assert_eq!(uri, &path);
    assert_eq!((all("x-remote-user"), all("x-remote-uid")), (vec!["jane"], vec!["42"]));
    assert_eq!(all("x-remote-group"), ["system:masters", "other"]);
    assert_eq!(all("x-remote-extra-example.org%2fscope"), ["a"]);
    assert_eq!((all("authorization").len(), all("accept")), (0, vec!["application/json"]));
    // Who may not is refused here.
    let (code, _, text) = as_user(&server, UserInfo::new("john", &[]), &path, &[]).await;
    assert_eq!(code, 403, "{text}");
    assert!(
        text.contains("flunders.wardle.example.com \\\"f\\\" is forbidden: User \\\"john\\\" cannot get resource"),
        "{text}"
    );
    assert!(wardle.asked().is_empty());
    let (code, _, text) = as_user(&server, common::admin(), &format!("{FLUNDERS}/f/moved"), &[]).await;
    assert_eq!((code, text.trim()), (502, "the backend attempted to redirect this request, which is not permitted"));
}

#[tokio::test]
async fn what_cannot_be_asked_is_told_in_plain_words() {
    let (server, wardle) = (server().await, Wardle::start().await);
    wardle.register(&server, json!({ "insecureSkipTLSVerify": true })).await;
    assert_eq!(server.get(FLUNDERS).await.code, 200);
    assert_eq!(server.api.check_api_service(NAME).await, Ok(()));
    let object = server.get(&format!("{API_SERVICES}/{NAME}")).await.expect(200);
    available(&server, object, "False").await;
    let refused = server.get(FLUNDERS).await;
    assert_eq!((refused.code, refused.text.as_str()), (503, "service unavailable\n"));
    assert_eq!(refused.headers["x-content-type-options"], "nosniff");
    let wrong = r#"{"spec":{"insecureSkipTLSVerify":false}}"#;
    let path = format!("{API_SERVICES}/{NAME}");
    server.typed("PATCH", &path, "application/merge-patch+json", wrong).await.expect(200);
    let why = server.api.check_api_service(NAME).await.unwrap_err();
    let url = format!("https://127.0.0.1:{}/apis/wardle.example.com/v1alpha1", wardle.port);
    assert!(why.starts_with(&format!("failing or missing response from {url}: Get \"{url}\": ")), "{why}");
    assert!(why.contains("UnknownIssuer"), "{why}");
    server.delete("/api/v1/namespaces/wardle/services/api").await.expect(200);
    assert_eq!(server.api.check_api_service(NAME).await, Err("service \"api\" not found".to_owned()));
    server.delete(&path).await.expect(200);
    assert_eq!(server.get(FLUNDERS).await.code, 404);
}

#[tokio::test]
async fn clients_find_what_other_servers_have() {
    let (server, wardle) = (server().await, Wardle::start().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
    let api = server.api.clone();
    // Documents are fetched while the server serves.
    tokio::spawn(async move { api.serve(listener, Arc::new(nobody), std::future::pending()).await });
    wardle.register(&server, json!({ "caBundle": wardle.bundle })).await;
    let group = server.get("/apis/wardle.example.com").await.expect(200);
    assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1alpha1");
    let list = server.get("/apis/wardle.example.com/v1alpha1").await.expect(200);
    assert_eq!(list["resources"][0]["name"], "flunders");
    let found = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        loop {
            let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            let all = server.accepting("/apis", accept).await.expect(200);
            let groups = all["items"].as_array().unwrap();
            let found = groups.iter().find(|group| group["metadata"]["name"] == "wardle.example.com").unwrap();
            if found["versions"][0]["freshness"] == "Current" {
                return found.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(found["versions"][0]["resources"][0]["responseKind"]["kind"], "Flunder");
    let index = server.get("/openapi/v3").await.expect(200);
    let entry = &index["paths"]["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"];
    assert_eq!(entry, "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=A");
    assert_eq!(server.get(entry.as_str().unwrap()).await.expect(200), json!({ "openapi": "3.0.0" }));
    let whole = server.get("/openapi/v2").await.expect(200);
    assert!(whole["paths"]["/apis/wardle.example.com/v1alpha1/flunders"].is_object());
    assert!(whole["definitions"]["Flunder"].is_object() && whole["definitions"]["Other"].is_null());
    assert!(whole["paths"]["/api/v1/pods"].is_object());
}

#[tokio::test]
async fn what_is_served_here_has_api_services() {
    let server = server().await;
    let all = server.get(API_SERVICES).await.expect(200);
    let items = all["items"].as_array().unwrap();
    let core = items.iter().find(|item| item["metadata"]["name"] == "v1.").unwrap();
    assert_eq!((&core["spec"]["groupPriorityMinimum"], &core["spec"]["versionPriority"]), (&json!(18_000), &json!(1)));
    assert_eq!(core["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    for item in items {
        let condition = &item["status"]["conditions"][0];
        assert_eq!((&condition["reason"], &condition["status"]), (&json!("Local"), &json!("True")), "{item}");
    }
    assert!(items.iter().any(|item| item["metadata"]["name"] == "v1.apps"));
    assert!(items.iter().all(|item| item["metadata"]["name"] != "v1.apiregistration.k8s.io"));
}
