//! `/exec`, `/attach`, `/portForward`, `/run`: sessions with what runs in a pod.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::containers::{self, Target};
use super::query::Query;
use super::routes::{Body, Failure, Router, typed};
use super::stream;

impl Router {
    async fn running(&self, target: &Target<'_>) -> Result<String, Failure> {
        let known = self.pods.get(target.namespace, target.pod).ok_or_else(no_such_pod)?;
        let uid = target.uid.or(known.metadata.uid.as_deref());
        containers::running(&self.runtime, &Target { uid, ..target.clone() })
            .await?
            .ok_or_else(|| Failure::internal(format!("container not found (\"{}\")\n", target.container)))
    }

    fn idle(&self) -> Duration {
        self.config.kubelet.streaming_connection_idle_timeout.0
    }

    pub(super) async fn exec(&self, target: Target<'_>, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
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
        Ok(stream::proxy(request, &url, self.idle()).await)
    }

    pub(super) async fn attach(
        &self,
        target: Target<'_>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Failure> {
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
        Ok(stream::proxy(request, &url, self.idle()).await)
    }

    pub(super) async fn port_forward(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let known = self.pods.get(namespace, pod).ok_or_else(no_such_pod)?;
        let uid = uid.or(known.metadata.uid.as_deref());
        let pod_sandbox_id = containers::sandbox(&self.runtime, namespace, pod, uid).await?.ok_or_else(no_such_pod)?;
        // WebSocket clients name the ports here; SPDY clients name them in each stream.
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let port = query.all("port").iter().flat_map(|ports| ports.split(',')).filter_map(|p| p.parse().ok()).collect();
        let url = self.runtime.port_forward(cri::v1::PortForwardRequest { pod_sandbox_id, port }).await?.url;
        Ok(stream::proxy(request, &url, self.idle()).await)
    }

    pub(super) async fn run(&self, target: Target<'_>, query: &str) -> Result<Response<Body>, Failure> {
        let cmd = Query::parse(query).get("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
        let id = self.running(&target).await?;
        let answer = self.runtime.exec_sync(&id, cmd, Duration::ZERO).await?;
        let mut output = answer.stdout;
        output.extend(answer.stderr);
        Ok(typed(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from(output)))
    }
}

fn no_such_pod() -> Failure {
    Failure::not_found("pod does not exist\n".into())
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
