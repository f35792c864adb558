//! An API server for tests of controllers: its objects are of one version, it takes the writes that go on from that one, and
//! remembers what it took.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

#[derive(Clone)]
pub(crate) struct FakeApi {
    version: &'static str,
    objects: Arc<BTreeMap<String, Value>>,
    /// `METHOD PATH` and body of each write.
    taken: Arc<Mutex<Vec<(String, Value)>>>,
}

impl FakeApi {
    /// One whose objects are of this version.
    pub(crate) fn new(version: &'static str) -> Self {
        Self::with(version, [])
    }

    /// One that has these objects, by their paths.
    pub(crate) fn with<const N: usize>(version: &'static str, objects: [(&str, Value); N]) -> Self {
        let objects = objects.map(|(path, object)| (path.to_owned(), object));
        FakeApi { version, objects: Arc::new(objects.into()), taken: Arc::default() }
    }

    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let answer = move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let (code, answer) = api.answer(&head.method, head.uri.path(), body);
                Ok::<_, Infallible>(response(code, &answer))
            }
        };
        Client::new(service_fn(answer), "default")
    }

    /// The writes that it took, without their bodies.
    pub(crate) fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().iter().map(|(what, _)| what.clone()).collect()
    }

    /// The body of a write that it took.
    pub(crate) fn body(&self, what: &str) -> Value {
        let taken = self.taken.lock().unwrap();
        taken.iter().find(|(taken, _)| taken == what).map(|(_, body)| body.clone()).unwrap_or_default()
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        if method == Method::GET {
            return match self.objects.get(path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None => (StatusCode::NOT_FOUND, json!({})),
            };
        }
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        if method == Method::POST && self.objects.contains_key(&format!("{path}/{name}")) {
            return (StatusCode::CONFLICT, json!({ "reason": "AlreadyExists" }));
        }
        let from = &body["metadata"]["resourceVersion"];
        if method != Method::POST && !from.is_null() && from != self.version {
            return (StatusCode::CONFLICT, json!({}));
        }
        self.taken.lock().unwrap().push((format!("{method} {path}"), body.clone()));
        (StatusCode::OK, body)
    }
}

fn response(code: StatusCode, answer: &Value) -> Response<Body> {
    let reason = answer["reason"].as_str().unwrap_or(match code {
        StatusCode::NOT_FOUND => "NotFound",
        _ => "Conflict",
    });
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": code.to_string(),
        "reason": reason, "code": code.as_u16(),
    });
    let body = if code.is_success() { answer } else { &status };
    Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
}
