//! A server over a store in a temporary folder, asked in process.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod https;

use std::sync::Arc;

use apiserver::{ApiServer, Body, Config, Network, Security};
use auth::{
    Authenticator, Authorizers, Facts, NodeAuthorizer, NodeGraph, Observer, Rbac, ServiceAccountTokens, SigningKey,
    TokenIssuerConfig, UserInfo, names,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use store::Embedded;
use tempfile::TempDir;
use tower::ServiceExt as _;

pub struct Server {
    pub api: ApiServer,
    pub folder: TempDir,
}

pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        self.json()
    }
}

pub fn security() -> Security {
    let (facts, rbac, graph) = (Arc::new(Facts::new()), Arc::new(Rbac::new()), Arc::new(NodeGraph::new()));
    let key = SigningKey::from_pem(&auth::pki::new_key_pem().unwrap()).unwrap();
    let tokens = TokenIssuerConfig {
        issuer: "https://test".into(),
        audiences: Vec::new(),
        signing_key: key,
        verifying_keys: Vec::new(),
    };
    let tokens = Arc::new(ServiceAccountTokens::new(tokens, Arc::clone(&facts)));
    Security {
        authenticator: Arc::new(Authenticator::new(Arc::clone(&facts), tokens)),
        authorizer: Arc::new(Authorizers::new(NodeAuthorizer::new(Arc::clone(&graph)).unwrap(), Arc::clone(&rbac))),
        rbac: Arc::clone(&rbac),
        observers: vec![facts as Arc<dyn Observer>, rbac, graph],
    }
}

pub fn open(folder: &TempDir) -> ApiServer {
    let config = Config {
        backend: Arc::new(Embedded::open(folder.path().join("store")).unwrap()),
        security: security(),
        network: Network {
            advertise: "192.0.2.1:6443".parse().unwrap(),
            services: "10.96.0.0/24".parse().unwrap(),
            node_ports: 30_000..=30_010,
        },
        kubelet_client: None,
        proxy_client: None,
        front_proxies: None,
    };
    ApiServer::open(config).unwrap()
}

pub async fn server() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let api = open(&folder);
    api.bootstrap().await.unwrap();
    Server { api, folder }
}

pub fn admin() -> UserInfo {
    UserInfo::new("admin", &[names::PRIVILEGED_GROUP, names::ALL_AUTHENTICATED])
}

impl Server {
    pub async fn raw(&self, user: UserInfo, request: Request<Full<Bytes>>) -> Response<Body> {
        self.api.in_process(user, "test").oneshot(request).await.unwrap()
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let response = self.raw(admin(), request).await;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { code: head.status.as_u16(), headers: head.headers, text: String::from_utf8(bytes.into()).unwrap() }
    }

    pub async fn call(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.typed(method, path, "application/json", &body.to_string()).await
    }

    pub async fn typed(&self, method: &str, path: &str, content: &str, body: &str) -> Answer {
        let request = Request::builder().method(method).uri(path).header("content-type", content);
        self.send(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.accepting(path, "application/json").await
    }

    pub async fn accepting(&self, path: &str, accept: &str) -> Answer {
        let request = Request::builder().uri(path).header("accept", accept).body(Full::default()).unwrap();
        self.send(request).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        let request = Request::builder().method("DELETE").uri(path).body(Full::default()).unwrap();
        self.send(request).await
    }

    /// Opens a watch; lines come from [`Lines::next`].
    pub async fn watch(&self, path: &str) -> Lines {
        let request = Request::builder().uri(path).body(Full::default()).unwrap();
        let response = self.raw(admin(), request).await;
        assert_eq!(response.status(), 200);
        Lines { body: response.into_body(), rest: Vec::new() }
    }
}

pub struct Lines {
    body: Body,
    rest: Vec<u8>,
}

impl Lines {
    /// The next event; `None` when the watch has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.rest.extend_from_slice(frame.data_ref().unwrap());
        }
    }

    /// `TYPE name`
    pub async fn seen(&mut self) -> String {
        let event = self.next().await.unwrap();
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-").to_owned();
        format!("{} {name}", event["type"].as_str().unwrap())
    }
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";

pub fn config_map(name: &str) -> Value {
    json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": name }, "data": { "key": "value" } })
}

/// A pod that needs no ServiceAccount token.
pub fn pod(name: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1", "metadata": { "name": name },
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{ "name": "main", "image": "busybox" }],
        },
    })
}

pub async fn with_service_account(server: &Server) {
    let account = json!({ "kind": "ServiceAccount", "apiVersion": "v1", "metadata": { "name": "default" } });
    server.call("POST", "/api/v1/namespaces/default/serviceaccounts", &account).await.expect(201);
}
