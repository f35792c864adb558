//! The paths of the server, as kubelet has them (pkg/kubelet/server/server.go).

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::auth::{Gate, Peer, Refusal};
use super::containers::{self, RunningInRuntime, Target};
use super::logs;
use super::query::{Query, log_options};
use super::{Pods, metrics, stream};
use crate::client::watch::describe;
use crate::config::Config;

/// What responses are made of.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

pub(super) struct Router {
    pub(super) gate: Gate,
    pub(super) config: Arc<Config>,
    pub(super) runtime: cri::Client,
    pub(super) pods: Arc<dyn Pods>,
}

/// A plain text response.
pub(super) fn text(status: StatusCode, message: &str) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(message.as_bytes()))
}

fn typed(status: StatusCode, content_type: &'static str, content: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(content).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

fn json_of(value: &Value) -> Response<Body> {
    typed(StatusCode::OK, "application/json", Bytes::from(value.to_string()))
}

/// An answer that is no success.
struct Failure(StatusCode, String);

impl Failure {
    fn not_found(message: String) -> Self {
        Self(StatusCode::NOT_FOUND, message)
    }

    fn bad_request(message: String) -> Self {
        Self(StatusCode::BAD_REQUEST, message)
    }
}

impl From<cri::CallError> for Failure {
    fn from(error: cri::CallError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, describe(&error) + "\n")
    }
}

impl Router {
    /// Answers one request.
    pub(super) async fn answer(&self, peer: Option<&Peer>, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        match self.gate.pass(peer, request.method(), &path, request.headers()).await {
            Ok(user) => {
                tracing::debug!(user = %user.name, method = %request.method(), path, "request");
            }
            Err(Refusal::Unauthorized) => return text(StatusCode::UNAUTHORIZED, "Unauthorized\n"),
            Err(Refusal::Forbidden(message)) => return text(StatusCode::FORBIDDEN, &message),
            Err(Refusal::Undecided(message)) => return text(StatusCode::INTERNAL_SERVER_ERROR, &message),
        }
        match self.route(&path, request).await {
            Ok(response) => response,
            Err(Failure(status, message)) => text(status, &message),
        }
    }

    async fn route(&self, path: &str, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let reading = matches!(*request.method(), Method::GET | Method::HEAD);
        let debugging = self.config.kubelet.enable_debugging_handlers;
        match parts.as_slice() {
            ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] if reading => Ok(text(StatusCode::OK, "ok")),
            ["pods"] if reading => Ok(json_of(&pod_list(&self.pods.all()))),
            ["configz"] if reading => Ok(json_of(&json!({"kubeletconfig": self.config.kubelet}))),
            ["metrics"] if reading => Ok(metrics_response(metrics::process())),
            ["metrics", "resource"] if reading => Ok(metrics_response(metrics::resource(&self.runtime).await?)),
            ["runningpods"] if reading && debugging => self.running_pods().await,
            ["containerLogs", namespace, pod, container] if reading && debugging => {
                let target = Target { namespace, pod, uid: None, container };
                self.logs(&target, request.uri().query().unwrap_or_default()).await
            }
            ["exec", rest @ ..] if debugging => self.exec(target(rest)?, request).await,
            ["attach", rest @ ..] if debugging => self.attach(target(rest)?, request).await,
            ["run", rest @ ..] if debugging && *request.method() == Method::POST => {
                self.run(target(rest)?, request.uri().query().unwrap_or_default()).await
            }
            ["portForward", namespace, pod] if debugging => self.port_forward(namespace, pod, None, request).await,
            ["portForward", namespace, pod, uid] if debugging => {
                self.port_forward(namespace, pod, Some(uid), request).await
            }
            _ => Err(Failure::not_found("404 page not found\n".into())),
        }
    }

    async fn logs(&self, target: &Target<'_>, query: &str) -> Result<Response<Body>, Failure> {
        let query = Query::parse(query);
        let (mut options, previous) =
            log_options(&query, jiff::Timestamp::now()).map_err(|m| Failure(StatusCode::UNPROCESSABLE_ENTITY, m))?;
        let runs = containers::runs(&self.runtime, target).await?;
        // The run before is the one that ended last: while a restart is awaited, that is the latest of all.
        let ended = cri::v1::ContainerState::ContainerExited as i32;
        let is_wanted = |run: &&cri::v1::Container| !previous || run.state == ended;
        let waits = previous && self.awaits_restart(target);
        let candidates = runs.iter().skip(usize::from(previous && !waits));
        let run = candidates.into_iter().find(is_wanted).ok_or_else(|| self.no_such_run(target, previous))?;
        let path = containers::log_path(&self.runtime, &run.id)
            .await?
            .ok_or_else(|| Failure::bad_request(format!("container {:?} has no log\n", target.container)))?;
        // A container that ended writes no more.
        options.follow &= run.state == cri::v1::ContainerState::ContainerRunning as i32;
        if !tokio::fs::try_exists(&path).await.unwrap_or(false) {
            let message = format!("failed to try resolving symlinks in path {:?}: no such file\n", path.display());
            return Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, message));
        }
        let liveness = RunningInRuntime { runtime: self.runtime.clone(), id: run.id.clone() };
        let (sink, chunks) = mpsc::channel(2);
        tokio::spawn(async move {
            if let Err(error) = logs::read(&path, &options, sink, liveness).await {
                tracing::debug!(%error, path = %path.display(), "log reader ended");
            }
        });
        let frames = ReceiverStream::new(chunks).map(|chunk| Ok::<_, io::Error>(Frame::data(chunk)));
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
        Ok(response)
    }

    /// Whether the container has ended and will be started again (`CrashLoopBackOff`).
    fn awaits_restart(&self, target: &Target<'_>) -> bool {
        let known = self.pods.get(target.namespace, target.pod);
        known.is_some_and(|pod| waiting_reason(&pod, target.container).is_some())
    }

    /// Tells apart what is missing: pod, container, its first or its previous run.
    fn no_such_run(&self, target: &Target<'_>, previous: bool) -> Failure {
        let Target { namespace, pod, container, .. } = target;
        let Some(known) = self.pods.get(namespace, pod) else {
            return Failure::not_found(format!("pod {pod:?} does not exist\n"));
        };
        if !has_container(&known, container) {
            return Failure::not_found(format!("container {container:?} not found in pod {pod:?}\n"));
        }
        if previous {
            let message = format!("previous terminated container {container:?} in pod {pod:?} not found\n");
            return Failure::bad_request(message);
        }
        let reason = waiting_reason(&known, container).unwrap_or("ContainerCreating");
        Failure::bad_request(format!("container {container:?} in pod {pod:?} is waiting to start: {reason}\n"))
    }

    async fn running(&self, target: &Target<'_>) -> Result<String, Failure> {
        containers::running(&self.runtime, target)
            .await?
            .ok_or_else(|| Failure::not_found(format!("container not found (\"{}\")\n", target.container)))
    }

    async fn exec(&self, target: Target<'_>, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let streams = Streams::read(&query)?;
        let container_id = self.running(&target).await?;
        let exec = cri::v1::ExecRequest {
            container_id,
            cmd: query.all("command"),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        let url = self.runtime.exec(exec).await?.url;
        Ok(stream::proxy(request, &url).await)
    }

    async fn attach(&self, target: Target<'_>, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let streams = Streams::read(&Query::parse(request.uri().query().unwrap_or_default()))?;
        let container_id = self.running(&target).await?;
        let attach = cri::v1::AttachRequest {
            container_id,
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        let url = self.runtime.attach(attach).await?.url;
        Ok(stream::proxy(request, &url).await)
    }

    async fn port_forward(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let sandbox = containers::sandbox(&self.runtime, namespace, pod, uid).await?;
        let pod_sandbox_id = sandbox.ok_or_else(|| Failure::not_found("pod does not exist\n".into()))?;
        // WebSocket clients name the ports here; SPDY clients name them in each stream.
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let port = query.all("port").iter().flat_map(|ports| ports.split(',')).filter_map(|p| p.parse().ok()).collect();
        let url = self.runtime.port_forward(cri::v1::PortForwardRequest { pod_sandbox_id, port }).await?.url;
        Ok(stream::proxy(request, &url).await)
    }

    async fn run(&self, target: Target<'_>, query: &str) -> Result<Response<Body>, Failure> {
        let cmd = Query::parse(query).get("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
        let id = self.running(&target).await?;
        let answer = self.runtime.exec_sync(&id, cmd, std::time::Duration::ZERO).await?;
        let mut output = answer.stdout;
        output.extend(answer.stderr);
        Ok(typed(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from(output)))
    }

    async fn running_pods(&self) -> Result<Response<Body>, Failure> {
        let request = cri::v1::ListPodSandboxRequest { filter: None };
        let ready = cri::v1::PodSandboxState::SandboxReady as i32;
        let sandboxes = self.runtime.list_pod_sandbox(request).await?.items;
        let items: Vec<Value> = sandboxes
            .into_iter()
            .filter(|sandbox| sandbox.state == ready)
            .filter_map(|sandbox| sandbox.metadata)
            .map(|of| json!({"metadata": {"name": of.name, "namespace": of.namespace, "uid": of.uid}}))
            .collect();
        Ok(json_of(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})))
    }
}

/// The streams of an exec or attach session.
struct Streams {
    tty: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

impl Streams {
    /// The rules of `remotecommand.NewOptions`: with a terminal there is one output.
    fn read(query: &Query) -> Result<Self, Failure> {
        let tty = query.flag("tty");
        let (stdin, stdout, stderr) = (query.flag("input"), query.flag("output"), query.flag("error"));
        if !(stdin || stdout || stderr) {
            return Err(Failure::bad_request("you must specify at least 1 of stdin, stdout, stderr\n".into()));
        }
        Ok(Self { tty, stdin, stdout, stderr: stderr && !tty })
    }
}

/// `{namespace}/{pod}[/{uid}]/{container}`.
fn target<'a>(parts: &[&'a str]) -> Result<Target<'a>, Failure> {
    match parts {
        [namespace, pod, container] => Ok(Target { namespace, pod, uid: None, container }),
        [namespace, pod, uid, container] => Ok(Target { namespace, pod, uid: Some(uid), container }),
        _ => Err(Failure::not_found("404 page not found\n".into())),
    }
}

fn pod_list(pods: &[Arc<Pod>]) -> Value {
    let items: Vec<&Pod> = pods.iter().map(Arc::as_ref).collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

fn has_container(pod: &Pod, name: &str) -> bool {
    pod.spec.as_ref().is_some_and(|spec| {
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(|c| c.name == name)
            || spec.ephemeral_containers.iter().flatten().any(|c| c.name == name)
    })
}

fn waiting_reason<'a>(pod: &'a Pod, container: &str) -> Option<&'a str> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let found = all.into_iter().find(|c| c.name == container)?;
    found.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

fn metrics_response(metrics: String) -> Response<Body> {
    typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", Bytes::from(metrics))
}
