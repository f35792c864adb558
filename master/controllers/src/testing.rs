//! An API server of one object, for tests of what is read again before it is written.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// The object, `Null` when there is none. Each change has to raise its resourceVersion.
pub(crate) type Shared = Arc<Mutex<Value>>;

/// A client of the server; `before` sees each request, by its method, before it is answered, and may change the object.
pub(crate) fn client(object: &Shared, before: impl Fn(&Method, &mut Value) + Send + Sync + 'static) -> Client {
    let (object, before) = (object.clone(), Arc::new(before));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (object, before) = (object.clone(), before.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let sent = serde_json::from_slice(&body).unwrap_or_default();
            let mut object = object.lock().unwrap();
            before(&head.method, &mut object);
            let (code, answer) = answer(&head.method, &sent, &mut object);
            let answer = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
            Ok::<_, tower::BoxError>(answer.unwrap())
        }
    });
    Client::new(service, "default")
}

fn answer(method: &Method, sent: &Value, object: &mut Value) -> (u16, Value) {
    if object.is_null() {
        return (404, status("NotFound", 404));
    }
    if *method == Method::DELETE {
        let wanted = &sent["preconditions"];
        let differs = |field: &str| !wanted[field].is_null() && wanted[field] != object["metadata"][field];
        if differs("uid") || differs("resourceVersion") {
            return (409, status("Conflict", 409));
        }
        return (200, std::mem::take(object));
    }
    (200, object.clone())
}

fn status(reason: &str, code: u16) -> Value {
    let details = json!({ "name": "x" });
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "details": details })
}
