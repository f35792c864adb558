//! Calls of webhooks: where they are, and one HTTPS request to each (`apiserver/pkg/util/webhook`).

use std::sync::Arc;
use std::time::Duration;

use admission::Lookup as _;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::hooks::CacheLookup;
use crate::server::Core;
use crate::subresources::service_address;
use crate::trust;

/// How much of an answer is read.
const MOST: usize = 4 * 1024 * 1024;

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
    /// The name that its certificate has.
    name: String,
    /// Where to connect.
    host: String,
    port: u16,
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
        let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        let lookup = CacheLookup(Arc::clone(&core.store));
        let found = lookup.get("", "services", namespace, name);
        let found = found.ok_or_else(|| CallError::Unreachable(format!("service \"{name}\" not found")))?;
        let (ip, target_port) = service_address(&lookup, &found, &port.to_string())
            .map_err(|problem| CallError::Unreachable(problem.message))?;
        let dns = format!("{name}.{namespace}.svc");
        let path = Some(text("path")).filter(|path| !path.is_empty()).unwrap_or("/").to_owned();
        let url = format!("https://{dns}:{port}{path}");
        Ok(Target { name: dns, host: ip.to_string(), port: target_port, path, url })
    }

    fn at(url: &str) -> Result<Target, CallError> {
        let bad = || CallError::Unreachable(format!("{url} is no URL of a webhook"));
        let uri: http::Uri = url.parse().map_err(|_| bad())?;
        let host = uri.host().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Target { name: host.clone(), host, port: uri.port_u16().unwrap_or(443), path, url: url.to_owned() })
    }

    fn failed(&self, reason: impl ToString) -> CallError {
        CallError::Request { url: self.url.clone(), reason: reason.to_string() }
    }

    fn connector(&self, bundle: Option<&str>) -> Result<TlsConnector, CallError> {
        let roots = trust::roots(bundle.unwrap_or_default()).map_err(|error| self.failed(error))?;
        Ok(TlsConnector::from(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())))
    }
}

/// Asks a webhook about a request.
pub(super) async fn review(core: &Core, config: &Value, seconds: u64, request: &Value) -> Result<Value, CallError> {
    let review = json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request });
    let mut target = Target::of(core, config)?;
    let mark = if target.path.contains('?') { '&' } else { '?' };
    target.path.push_str(&format!("{mark}timeout={seconds}s"));
    target.url.push_str(&format!("{mark}timeout={seconds}s"));
    send(target, config, seconds, &review).await
}

/// Posts JSON to where `clientConfig` says, and reads JSON.
pub(crate) async fn post(core: &Core, config: &Value, seconds: u64, body: &Value) -> Result<Value, CallError> {
    send(Target::of(core, config)?, config, seconds, body).await
}

async fn send(target: Target, config: &Value, seconds: u64, body: &Value) -> Result<Value, CallError> {
    let connector = target.connector(config["caBundle"].as_str())?;
    let exchange = exchange(&target, connector, body.to_string());
    match tokio::time::timeout(Duration::from_secs(seconds), exchange).await {
        Ok(answered) => answered,
        Err(_) => Err(CallError::Timeout(target.url)),
    }
}

async fn exchange(target: &Target, connector: TlsConnector, body: String) -> Result<Value, CallError> {
    let (host, port) = (target.host.as_str(), target.port);
    let tcp = TcpStream::connect((host, port))
        .await
        .map_err(|error| target.failed(format!("dial tcp {host}:{port}: {error}")))?;
    let name = ServerName::try_from(target.name.clone()).map_err(|error| target.failed(error))?;
    let tls = connector.connect(name, tcp).await.map_err(|error| target.failed(format!("tls: {error}")))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(|error| target.failed(error))?;
    // It ends with the sender.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to a webhook ended");
        }
    });
    let request = Request::builder()
        .method(Method::POST)
        .uri(target.path.as_str())
        .header(HOST, target.name.as_str())
        .header(USER_AGENT, "kube-apiserver-admission")
        .header(ACCEPT, "application/json, */*")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| target.failed(error))?;
    let response = sender.send_request(request).await.map_err(|error| target.failed(error))?;
    let status = response.status();
    let bytes = Limited::new(response.into_body(), MOST).collect().await.map_err(|error| target.failed(error))?;
    let bytes = bytes.to_bytes();
    if !status.is_success() {
        return Err(CallError::Unreachable(String::from_utf8_lossy(&bytes).trim().to_owned()));
    }
    serde_json::from_slice(&bytes).map_err(|error| CallError::Answer(format!("couldn't decode the answer: {error}")))
}
