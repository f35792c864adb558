//! The paths of the server, as kubelet has them (pkg/kubelet/server/server.go).

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use serde_json::{Value, json};

use super::auth::{Gate, Peer, Refusal};
use super::containers::{self, Target};
use super::query::Query;
use super::{Pods, metrics, node_logs};
use crate::client::watch::describe;
use crate::config::Config;
use crate::exposition;
use crate::stats;

/// What responses are made of.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

pub(super) struct Router {
    /// `None` on the read-only port, where nobody is asked and little is served.
    pub(super) gate: Option<Gate>,
    pub(super) config: Arc<Config>,
    pub(super) runtime: cri::Client,
    pub(super) pods: Arc<dyn Pods>,
    pub(super) stats: Arc<stats::Provider>,
}

/// A plain text response.
pub(super) fn text(status: StatusCode, message: &str) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(message.as_bytes()))
}

pub(super) fn typed(status: StatusCode, content_type: &'static str, content: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(content).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

fn json_of(value: &impl Serialize) -> Result<Response<Body>, Failure> {
    let content = serde_json::to_vec(value).map_err(|error| Failure::internal(error.to_string()))?;
    Ok(typed(StatusCode::OK, "application/json", Bytes::from(content)))
}

fn metrics_response(metrics: String) -> Response<Body> {
    typed(StatusCode::OK, exposition::CONTENT_TYPE, Bytes::from(metrics))
}

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct Failure(pub(super) StatusCode, pub(super) String);

impl Failure {
    pub(super) fn not_found(message: String) -> Self {
        Self(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn bad_request(message: String) -> Self {
        Self(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn internal(message: String) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    fn no_such_path() -> Self {
        Self::not_found("404 page not found\n".into())
    }

    fn disabled(message: &str) -> Self {
        Self(StatusCode::METHOD_NOT_ALLOWED, format!("{message}\n"))
    }
}

impl From<cri::CallError> for Failure {
    fn from(error: cri::CallError) -> Self {
        Self::internal(describe(&error) + "\n")
    }
}

impl From<stats::Error> for Failure {
    fn from(error: stats::Error) -> Self {
        Self::internal(format!("Internal Error: {}", describe(&error)))
    }
}

impl Router {
    /// Answers one request.
    pub(super) async fn answer(&self, peer: Option<&Peer>, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let counted = metrics::Counted::begin(request.method(), &path, self.gate.is_none());
        let response = self.respond(peer, &path, request).await;
        counted.end();
        response
    }

    async fn respond(&self, peer: Option<&Peer>, path: &str, request: Request<Incoming>) -> Response<Body> {
        if let Some(gate) = &self.gate {
            match gate.pass(peer, request.method(), path, request.headers()).await {
                Ok(user) => {
                    tracing::debug!(user = %user.name, method = %request.method(), path, "request");
                }
                Err(Refusal::Unauthorized) => return text(StatusCode::UNAUTHORIZED, "Unauthorized"),
                Err(Refusal::Forbidden(message)) => return text(StatusCode::FORBIDDEN, &message),
                Err(Refusal::Undecided(message)) => return text(StatusCode::INTERNAL_SERVER_ERROR, &message),
            }
        }
        match self.route(path, request).await {
            Ok(response) => response,
            Err(Failure(status, message)) => text(status, &message),
        }
    }

    async fn route(&self, path: &str, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        if matches!(*request.method(), Method::GET | Method::HEAD | Method::POST)
            && let Some(answer) = self.report(&parts, request.uri().query().unwrap_or_default()).await
        {
            return answer;
        }
        if self.gate.is_some() && self.config.kubelet.enable_debugging_handlers {
            return self.debug(&parts, request).await;
        }
        match parts.first() {
            Some(&("run" | "exec" | "attach" | "portForward" | "containerLogs" | "runningpods" | "debug" | "logs")) => {
                Err(Failure::disabled("Debug endpoints are disabled."))
            }
            _ => Err(Failure::no_such_path()),
        }
    }

    /// What is served on both ports (upstream's `InstallAuthNotRequiredHandlers`).
    async fn report(&self, parts: &[&str], query: &str) -> Option<Result<Response<Body>, Failure>> {
        Some(match parts {
            ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => Ok(text(StatusCode::OK, "ok")),
            ["pods"] => json_of(&pod_list(&self.pods.all())),
            ["stats", "summary"] => self.summary(query).await,
            ["metrics"] => Ok(metrics_response(metrics::of_node(&self.stats).await)),
            ["metrics", "probes"] => Ok(metrics_response(crate::metrics::families::probes())),
            ["metrics", "resource"] => Ok(metrics_response(self.stats.resource_metrics().await)),
            ["metrics", "cadvisor"] => Ok(metrics_response(self.stats.cadvisor_metrics().await)),
            _ => return None,
        })
    }

    /// What is only served to those who may (upstream's `InstallAuthRequiredHandlers` and its like).
    async fn debug(&self, parts: &[&str], request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        let post = *request.method() == Method::POST;
        let query = request.uri().query().unwrap_or_default();
        match parts {
            ["configz"] if get => self.configz(),
            ["runningpods"] if get => self.running_pods().await,
            ["containerLogs", namespace, pod, container] if get => {
                let target = Target { namespace, pod, uid: None, container };
                self.container_logs(&target, query).await
            }
            ["logs", rest @ ..] if get => self.node_logs(rest, request.uri().path(), query).await,
            ["run", rest @ ..] if post => self.run(target(rest)?, query).await,
            ["exec", rest @ ..] if get || post => self.exec(target(rest)?, request).await,
            ["attach", rest @ ..] if get || post => self.attach(target(rest)?, request).await,
            ["portForward", namespace, pod] if get || post => self.port_forward(namespace, pod, None, request).await,
            ["portForward", namespace, pod, uid] if get || post => {
                self.port_forward(namespace, pod, Some(uid), request).await
            }
            _ => Err(Failure::no_such_path()),
        }
    }

    fn configz(&self) -> Result<Response<Body>, Failure> {
        let whole = self.config.kubelet.whole().map_err(|error| Failure::internal(error.to_string()))?;
        json_of(&json!({"kubeletconfig": whole}))
    }

    async fn summary(&self, query: &str) -> Result<Response<Body>, Failure> {
        let only_cpu_and_memory = Query::parse(query).all("only_cpu_and_memory") == ["true"];
        let summary = if only_cpu_and_memory { self.stats.cpu_and_memory().await } else { self.stats.summary().await }?;
        json_of(&summary)
    }

    async fn node_logs(&self, parts: &[&str], path: &str, query: &str) -> Result<Response<Body>, Failure> {
        let kubelet = &self.config.kubelet;
        if !kubelet.enable_system_log_handler {
            return Err(Failure::disabled("logs endpoint is disabled."));
        }
        let query = Query::parse(query);
        if kubelet.enable_system_log_query && node_logs::is_query(&query) {
            return node_logs::query(&query).await;
        }
        node_logs::file(parts, path.ends_with('/')).await
    }

    async fn running_pods(&self) -> Result<Response<Body>, Failure> {
        let pods = containers::pods(&self.runtime).await?;
        let items: Vec<Value> = pods.into_iter().map(|pod| pod.into_json()).collect();
        json_of(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
    }
}

/// `{namespace}/{pod}[/{uid}]/{container}`.
fn target<'a>(parts: &[&'a str]) -> Result<Target<'a>, Failure> {
    match parts {
        [namespace, pod, container] => Ok(Target { namespace, pod, uid: None, container }),
        [namespace, pod, uid, container] => Ok(Target { namespace, pod, uid: Some(uid), container }),
        _ => Err(Failure::no_such_path()),
    }
}

fn pod_list(pods: &[Arc<Pod>]) -> Value {
    let items: Vec<&Pod> = pods.iter().map(Arc::as_ref).collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}
