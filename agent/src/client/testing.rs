//! An API server that is a function.
#![allow(clippy::unwrap_used)] // helpers of tests: clippy.toml excepts only the test functions themselves

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use kube::client::Body;
use serde_json::Value;

/// A request.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    /// Null where there is none.
    pub(crate) body: Value,
}

/// A client whose requests `answer` answers, with a code and a body. Where it has no answer there is none, ever, as of a watch in which nothing
/// happens.
pub(crate) fn answered(answer: impl Fn(Asked) -> Option<(u16, String)> + Send + Sync + 'static) -> kube::Client {
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = Arc::clone(&answer);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let asked = Asked { method: parts.method, uri: parts.uri, body };
            let Some((code, text)) = answer(asked) else { return std::future::pending().await };
            Ok::<_, Infallible>(Response::builder().status(code).body(Full::new(Bytes::from(text))).unwrap())
        }
    });
    kube::Client::new(service, "default")
}
