//! The socket that people on the machine ask through: a unix socket in the run folder, for root only.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::views::{self, Explained};
use crate::client::watch::describe;
use crate::pods::PodsHandle;
use crate::pods::journal::Journal;
use crate::pods::questions::Questions;
use crate::pods::registry::Registry;
use crate::serve::metrics;
use crate::stats::{self, Detail};

/// Longer than a look at a runtime that is well.
const PATIENCE: Duration = Duration::from_secs(10);

/// What answers are made of.
#[derive(Clone)]
pub struct Inspector {
    registry: Arc<Registry>,
    stats: Arc<stats::Provider>,
    journal: Arc<Journal>,
    questions: Arc<Questions>,
}

impl Inspector {
    /// Of the pods that run.
    #[must_use]
    pub fn new(pods: &PodsHandle) -> Self {
        Self { registry: pods.registry(), stats: pods.stats(), journal: pods.journal(), questions: pods.questions() }
    }

    /// What is about to be done for a pod, and what was; `None` when nothing is known of it.
    pub async fn explain(&self, namespace: &str, name: &str) -> Option<Explained> {
        let history = self.journal.of(namespace, name);
        let Some((uid, entry)) = self.registry.named(namespace, name) else {
            return (!history.is_empty()).then_some(Explained { pod: None, now: None, history });
        };
        let now = tokio::time::timeout(PATIENCE, self.questions.ask(&uid)).await.ok().flatten();
        Some(Explained { pod: Some(views::pod(&uid, &entry)), now, history })
    }

    async fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["pods"] => json(&views::pods(&self.registry.entries())),
            ["top"] => match self.stats.sample(Detail::Summary).await {
                Ok(sample) => json(&views::top(&self.registry.entries(), &sample)),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, describe(&error)),
            },
            ["metrics"] => {
                text(StatusCode::OK, metrics::of_node(&self.stats).await + &self.stats.resource_metrics().await)
            }
            ["explain", namespace, name] => match self.explain(namespace, name).await {
                Some(explained) => json(&explained),
                None => text(StatusCode::NOT_FOUND, format!("this node knows no pod {namespace}/{name}")),
            },
            _ => text(StatusCode::NOT_FOUND, "404 page not found".to_owned()),
        }
    }
}

/// Listens at `path`. What an agent that was killed left there is replaced.
///
/// # Errors
/// What the filesystem said.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until it is dropped.
pub async fn serve(listener: UnixListener, inspector: Inspector) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_allowed(&stream) => {
                while connections.try_join_next().is_some() {}
                connections.spawn(connection(stream, inspector.clone()));
            }
            // Between bind and chmod anybody could connect.
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Whether the peer is root, or who runs this agent.
fn is_allowed(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

async fn connection(stream: UnixStream, inspector: Inspector) {
    let service = service_fn(move |request: Request<Incoming>| {
        let inspector = inspector.clone();
        async move { Ok::<_, Infallible>(inspector.answer(request.uri().path()).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).keep_alive(false);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "connection of a person on the machine ended");
    }
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let mut response = Response::new(Full::from(body));
            let kind = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn text(status: StatusCode, message: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(message + "\n"));
    *response.status_mut() = status;
    response
}
