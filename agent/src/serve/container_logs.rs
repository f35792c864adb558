//! `/containerLogs`: which run of a container is meant, and what is said where there is none.

use std::io;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, Pod};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::containers::{self, RunningInRuntime, Target};
use super::logs;
use super::query::{Query, log_options};
use super::routes::{Body, Failure, Router};
use crate::client::watch::describe;

impl Router {
    pub(super) async fn container_logs(&self, target: &Target<'_>, query: &str) -> Result<Response<Body>, Failure> {
        let query = Query::parse(query);
        let (options, previous) =
            log_options(&query, jiff::Timestamp::now()).map_err(|m| Failure(StatusCode::UNPROCESSABLE_ENTITY, m))?;
        let Target { namespace, pod, container, .. } = *target;
        let missing = || Failure::not_found(format!("pod {pod:?} does not exist\n"));
        let known = self.pods.get(namespace, pod).ok_or_else(missing)?;
        if !has_container(&known, container) {
            return Err(Failure::not_found(format!("container {container:?} not found in pod {pod:?}\n")));
        }
        let run = run(&known, pod, container, previous).map_err(|text| Failure::bad_request(text + "\n"))?;
        let id = run.split_once("://").map_or(run, |(_, id)| id).to_owned();
        let path = containers::log_path(&self.runtime, &id).await.map_err(|error| {
            tracing::debug!(error = %describe(&error), container = run, "log of a container not found");
            Failure::bad_request(format!("unable to retrieve container logs for {run}\n"))
        })?;
        let path = path.ok_or_else(|| Failure::bad_request(format!("container {container:?} has no log\n")))?;
        if !tokio::fs::try_exists(&path).await.unwrap_or(false) {
            let path = path.display().to_string();
            let why = format!("lstat {path}: no such file or directory");
            return Err(Failure::bad_request(format!("failed to try resolving symlinks in path {path:?}: {why}\n")));
        }
        let liveness = RunningInRuntime { runtime: self.runtime.clone(), id };
        let (sink, chunks) = mpsc::channel(2);
        tokio::spawn(async move {
            if let Err(error) = logs::read(&path, &options, sink, liveness).await {
                tracing::debug!(%error, path = %path.display(), "log reader ended");
            }
        });
        Ok(stream(chunks))
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

/// The id of the run of a container whose log is meant, as its status has it, or why there is none (`validateContainerLogStatus`).
fn run<'a>(pod: &'a Pod, name: &str, container: &str, previous: bool) -> Result<&'a str, String> {
    let of = format!("container {container:?} in pod {name:?}");
    let statuses = pod.status.iter().flat_map(|status| {
        let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
        lists.into_iter().flatten().flatten()
    });
    let found = statuses.into_iter().find(|status| status.name == container);
    let found = found.ok_or_else(|| format!("{of} is not available"))?;
    let ended = |state: &'a Option<ContainerState>| state.as_ref().and_then(|state| state.terminated.as_ref());
    let id = |ended: &'a ContainerStateTerminated| ended.container_id.as_deref().filter(|id| !id.is_empty());
    let last = ended(&found.last_state);
    if previous {
        return last.and_then(id).ok_or_else(|| format!("previous terminated {of} not found"));
    }
    let state = found.state.as_ref();
    if state.is_some_and(|state| state.running.is_some()) {
        return found.container_id.as_deref().ok_or_else(|| format!("{of} is not available"));
    }
    // The next one may not have started: then the log is that of the one before.
    let now = ended(&found.state);
    if now.is_some() || last.is_some() {
        return now.and_then(id).or_else(|| last.and_then(id)).ok_or_else(|| format!("{of} is terminated"));
    }
    let waiting = state.and_then(|state| state.waiting.as_ref());
    Err(match waiting.map(|waiting| waiting.reason.as_deref().unwrap_or_default()) {
        Some("ErrImagePull") => format!("{of} is waiting to start: image can't be pulled"),
        Some("ImagePullBackOff") => format!("{of} is waiting to start: trying and failing to pull image"),
        Some(reason) => format!("{of} is waiting to start: {reason}"),
        None => format!("{of} is waiting to start - no logs yet"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn asked(status: &Value, previous: bool) -> Result<String, String> {
        let pod: Pod = serde_json::from_value(json!({ "status": status })).unwrap();
        run(&pod, "p", "c", previous).map(str::to_owned)
    }

    fn with(state: Value, last: Value) -> Value {
        json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "containerID": "r://now",
            "state": state, "lastState": last})
    }

    #[test]
    fn the_status_says_which_run_is_meant() {
        let ended = |id: &str| json!({"terminated": {"exitCode": 0, "containerID": id}});
        let waiting = || json!({"waiting": {"reason": "CrashLoopBackOff"}});
        for (state, last, now, before) in [
            (json!({"running": {}}), json!({}), Ok("r://now"), Err("previous terminated _ not found")),
            (json!({"running": {}}), ended("r://b"), Ok("r://now"), Ok("r://b")),
            (ended("r://a"), ended("r://b"), Ok("r://a"), Ok("r://b")),
            (ended(""), ended("r://b"), Ok("r://b"), Ok("r://b")),
            (ended(""), json!({}), Err("_ is terminated"), Err("previous terminated _ not found")),
            (waiting(), ended("r://b"), Ok("r://b"), Ok("r://b")),
            (waiting(), ended(""), Err("_ is terminated"), Err("previous terminated _ not found")),
        ] {
            for kind in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
                let status = json!({kind: [with(state.clone(), last.clone())]});
                let text = |text: &str| text.replace('_', "container \"c\" in pod \"p\"");
                assert_eq!(asked(&status, false), now.map(str::to_owned).map_err(text), "{status}");
                assert_eq!(asked(&status, true), before.map(str::to_owned).map_err(text), "{status}");
            }
        }
    }

    #[test]
    fn what_has_not_begun_says_what_it_waits_for() {
        for (state, text) in [
            (json!({"waiting": {"reason": "ErrImagePull"}}), "is waiting to start: image can't be pulled"),
            (
                json!({"waiting": {"reason": "ImagePullBackOff"}}),
                "is waiting to start: trying and failing to pull image",
            ),
            (json!({"waiting": {"reason": "PodInitializing"}}), "is waiting to start: PodInitializing"),
            (json!({}), "is waiting to start - no logs yet"),
        ] {
            let status = json!({"ephemeralContainerStatuses": [with(state, json!({}))]});
            assert_eq!(asked(&status, false).unwrap_err(), format!("container \"c\" in pod \"p\" {text}"));
        }
        assert_eq!(asked(&json!({}), false).unwrap_err(), "container \"c\" in pod \"p\" is not available");
    }
}
