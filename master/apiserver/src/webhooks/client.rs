//! Calls of webhooks: where they are, and one HTTPS request to each (`apiserver/pkg/util/webhook`).

use std::sync::Arc;
use std::time::Duration;

use admission::Lookup as _;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use crate::body;
use crate::endpoints;
use crate::hooks::CacheLookup;
use crate::https::{Trust, is_tls, root};
use crate::server::Core;

/// How much of an answer is read: four times what is asked at once, be it about an object or to convert some.
const MOST: usize = 16 * 1024 * 1024;

/// Why a webhook gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{0}")]
    Unreachable(String),
    #[error("Post \"{url}\": {reason}")]
    Request { url: String, reason: String },
    #[error("Post \"{0}\": context deadline exceeded")]
    Timeout(String),
    /// It answered, but not with a review.
    #[error("{0}")]
    Answer(String),
}

/// Somewhere to post to.
struct Target {
    /// Who it is told that it is.
    host: String,
    /// Where to connect.
    address: String,
    path: String,
    /// How errors name it.
    url: String,
}

impl Target {
    fn of(core: &Core, config: &Value) -> Result<Target, CallError> {
        if let Some(url) = config["url"].as_str() {
            return Self::at(url);
        }
        let service = &config["service"];
        let text = |field: &str| service[field].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let port = service["port"].as_u64().unwrap_or(443);
        let lookup = CacheLookup(Arc::clone(&core.store));
        let found = lookup.get("", "services", namespace, name);
        let found = found.ok_or_else(|| CallError::Unreachable(format!("service \"{name}\" not found")))?;
        let address = endpoints::resolve(core, &found, port).map_err(CallError::Unreachable)?;
        let host = format!("{name}.{namespace}.svc:{port}");
        let path = Some(text("path")).filter(|path| !path.is_empty()).unwrap_or("/").to_owned();
        let url = format!("https://{host}{path}");
        Ok(Target { host, address, path, url })
    }

    fn at(url: &str) -> Result<Target, CallError> {
        let bad = || CallError::Unreachable(format!("{url} is no URL of a webhook"));
        let uri: http::Uri = url.parse().map_err(|_| bad())?;
        let host = uri.authority().ok_or_else(bad)?.to_string();
        let address = format!("{}:{}", uri.host().ok_or_else(bad)?, uri.port_u16().unwrap_or(443));
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Target { host, address, path, url: url.to_owned() })
    }

    fn failed(&self, reason: impl ToString) -> CallError {
        CallError::Request { url: self.url.clone(), reason: reason.to_string() }
    }
}

/// Which certificates of a webhook are believed; `None` for what names none.
pub(super) fn trust(config: &Value) -> Option<Trust> {
    let name = match config["url"].as_str() {
        Some(url) => url.parse::<http::Uri>().ok()?.host()?.trim_matches(['[', ']']).to_owned(),
        None => format!("{}.{}.svc", config["service"]["name"].as_str()?, config["service"]["namespace"].as_str()?),
    };
    let bundle = config["caBundle"].as_str().unwrap_or_default().to_owned();
    Some(Trust { name, bundle, insecure: false })
}

/// Asks a webhook about a request.
pub(super) async fn review(core: &Core, config: &Value, seconds: u64, request: &Value) -> Result<Value, CallError> {
    let review = json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request });
    let mut target = Target::of(core, config)?;
    let mark = if target.path.contains('?') { '&' } else { '?' };
    target.path.push_str(&format!("{mark}timeout={seconds}s"));
    target.url.push_str(&format!("{mark}timeout={seconds}s"));
    send(core, target, (config, seconds), review.to_string()).await
}

/// Posts JSON to where `clientConfig` says, and reads JSON.
pub(crate) async fn post(core: &Core, config: &Value, seconds: u64, body: String) -> Result<Value, CallError> {
    send(core, Target::of(core, config)?, (config, seconds), body).await
}

async fn send(core: &Core, target: Target, (config, seconds): (&Value, u64), body: String) -> Result<Value, CallError> {
    let trust = trust(config).ok_or_else(|| CallError::Unreachable("clientConfig names no server".to_owned()))?;
    let exchange = exchange(core, &target, &trust, body);
    match tokio::time::timeout(Duration::from_secs(seconds), exchange).await {
        Ok(answered) => answered,
        Err(_) => Err(CallError::Timeout(target.url)),
    }
}

async fn exchange(core: &Core, target: &Target, trust: &Trust, body: String) -> Result<Value, CallError> {
    let connections = core.configured.connections(trust).map_err(|error| target.failed(error))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("https://{}{}", target.address, target.path))
        .header(HOST, target.host.as_str())
        .header(USER_AGENT, "kube-apiserver-admission")
        .header(ACCEPT, "application/json, */*")
        .header(CONTENT_TYPE, "application/json")
        .body(body::full(body))
        .map_err(|error| target.failed(error))?;
    let response = connections.request(request).await.map_err(|error| {
        let reason = root(&error);
        target.failed(match error.is_connect() {
            true if is_tls(&error) => format!("tls: {reason}"),
            true => format!("dial tcp {}: {reason}", target.address),
            false => reason,
        })
    })?;
    let status = response.status();
    let bytes = Limited::new(response.into_body(), MOST).collect().await.map_err(|error| target.failed(error))?;
    let bytes = bytes.to_bytes();
    if !status.is_success() {
        return Err(CallError::Unreachable(String::from_utf8_lossy(&bytes).trim().to_owned()));
    }
    serde_json::from_slice(&bytes).map_err(|error| CallError::Answer(format!("couldn't decode the answer: {error}")))
}
