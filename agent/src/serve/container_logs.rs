//! `/containerLogs`: which run of a container is meant, and what is said where there is none.

use std::io;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::containers::{self, RunningInRuntime, Target};
use super::logs;
use super::query::{Query, log_options};
use super::routes::{Body, Failure, Router};

impl Router {
    pub(super) async fn container_logs(&self, target: &Target<'_>, query: &str) -> Result<Response<Body>, Failure> {
        let query = Query::parse(query);
        let (mut options, previous) =
            log_options(&query, jiff::Timestamp::now()).map_err(|m| Failure(StatusCode::UNPROCESSABLE_ENTITY, m))?;
        let known = self.pods.get(target.namespace, target.pod);
        let uid = target.uid.or(known.as_deref().and_then(|pod| pod.metadata.uid.as_deref()));
        let runs = containers::runs(&self.runtime, &Target { uid, ..target.clone() }).await?;
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
            return Err(Failure::internal(message));
        }
        let liveness = RunningInRuntime { runtime: self.runtime.clone(), id: run.id.clone() };
        let (sink, chunks) = mpsc::channel(2);
        tokio::spawn(async move {
            if let Err(error) = logs::read(&path, &options, sink, liveness).await {
                tracing::debug!(%error, path = %path.display(), "log reader ended");
            }
        });
        Ok(stream(chunks))
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
}

/// Text that comes in pieces.
pub(super) fn stream(chunks: mpsc::Receiver<Bytes>) -> Response<Body> {
    let frames = ReceiverStream::new(chunks).map(|chunk| Ok::<_, io::Error>(Frame::data(chunk)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
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
