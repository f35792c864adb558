//! A container runtime in memory: it keeps state as a real one does, logs every call, fails on request, and its containers do as they are
//! told. It runs on tokio's clock, so that tests with paused time need not wait.
//!
//! What it claims: sandboxes and containers with their states, ids, labels, timestamps and exit codes; images by name; container events; idempotent
//! stop and remove; NotFound for what is not there. What it does not: namespaces, cgroups, logs, streaming, statistics.

mod images;
mod runtime;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tokio::sync::{Notify, broadcast};
use tokio_stream::wrappers::UnixListenerStream;
pub use tonic::Status;
use tonic::transport::server::Router;
use tonic::transport::{Endpoint, Server};

use crate::Client;
use crate::v1;
use crate::v1::image_service_server::ImageServiceServer;
use crate::v1::runtime_service_server::RuntimeServiceServer;
pub use state::{Container, Sandbox};
use state::{Hang, State};

/// One call that reached the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// e.g. `StartContainer`
    pub rpc: &'static str,
    /// The container, sandbox or image that it names or made; empty where there is none.
    pub id: String,
}

/// What a container's program does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Ends by itself after this long, with this code; `None` runs until it is stopped.
    pub ends: Option<(Duration, i32)>,
    /// How long it takes to end after SIGTERM; `None` ignores SIGTERM.
    pub on_term: Option<Duration>,
    /// What a command run in it answers: exit code and output.
    pub exec: (i32, Vec<u8>),
    /// How long such a command takes.
    pub exec_takes: Duration,
}

impl Default for Program {
    fn default() -> Self {
        Self { ends: None, on_term: Some(Duration::ZERO), exec: (0, Vec::new()), exec_takes: Duration::ZERO }
    }
}

/// A failure that a test asks for.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which call fails, counted from 0 over the calls that change something, since the failure was asked for.
    pub effect: usize,
    /// The change is made all the same: the answer is what gets lost.
    pub after: bool,
    pub status: Status,
}

/// The runtime. Clones are the same runtime.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<v1::ContainerEventResponse>,
}

impl Default for Fake {
    fn default() -> Self {
        Self { state: Arc::default(), events: broadcast::channel(1024).0 }
    }
}

impl Fake {
    /// A client of this runtime over a connection in memory. Call it within a tokio runtime.
    #[must_use]
    pub fn client(&self) -> Client {
        let fake = self.clone();
        let channel =
            Endpoint::from_static("http://fake").connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
                let fake = fake.clone();
                async move {
                    let (ours, theirs) = tokio::io::duplex(64 * 1024);
                    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(theirs));
                    tokio::spawn(fake.services().serve_with_incoming(incoming));
                    Ok::<_, std::io::Error>(TokioIo::new(ours))
                }
            }));
        Client::over(channel, PathBuf::from("/fake"))
    }

    /// Serves it at a socket, for programs that are no tests of ours, until it cannot.
    ///
    /// # Errors
    /// When the socket cannot be made or fails.
    pub async fn listen(&self, socket: &Path) -> io::Result<()> {
        let listener = UnixListenerStream::new(UnixListener::bind(socket)?);
        self.services().serve_with_incoming(listener).await.map_err(io::Error::other)
    }

    fn services(&self) -> Router {
        Server::builder()
            .add_service(RuntimeServiceServer::new(self.clone()))
            .add_service(ImageServiceServer::new(self.clone()))
    }

    /// Makes an image known, as if it had been pulled.
    pub fn add_image(&self, name: &str) {
        self.lock().images.insert(name.to_owned());
    }

    /// What it says of its configuration, as containerd shows it.
    pub fn configure(&self, config: &str) {
        self.lock().config = Some(config.to_owned());
    }

    /// What containers of this name do from their next start on.
    pub fn program(&self, container_name: &str, program: Program) {
        self.lock().programs.insert(container_name.to_owned(), program);
    }

    /// Makes one call fail.
    pub fn fail(&self, failure: Failure) {
        self.lock().failures.push(failure);
    }

    /// Makes one call wait for ever: the caller is to be dropped while it does. `after`: the change is made all the
    /// same. Answers when that call has come.
    pub fn hang(&self, effect: usize, after: bool) -> impl Future<Output = ()> + Send + use<> {
        let reached = Arc::new(Notify::new());
        self.lock().hangs.push(Hang { effect, after, reached: Arc::clone(&reached) });
        async move { reached.notified().await }
    }

    /// How many calls that change something there were.
    #[must_use]
    pub fn effects(&self) -> usize {
        self.lock().effects
    }

    /// All calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// How many calls so far were of this rpc.
    #[must_use]
    pub fn count(&self, rpc: &str) -> usize {
        self.lock().calls.iter().filter(|c| c.rpc == rpc).count()
    }

    /// Ends a running container, as if its program had ended.
    pub fn exit(&self, container_id: &str, code: i32) {
        self.finish(container_id, code, if code == 0 { "Completed" } else { "Error" });
    }

    /// Kills a running container for want of memory.
    pub fn oom_kill(&self, container_id: &str) {
        self.finish(container_id, 137, "OOMKilled");
    }

    /// Ends a sandbox behind everybody's back, with all that is in it.
    pub fn lose_sandbox(&self, sandbox_id: &str) {
        let lost = {
            let mut state = self.lock();
            if let Some(sandbox) = state.sandboxes.get_mut(sandbox_id) {
                sandbox.ready = false;
            }
            state.containers.values().filter(|c| c.sandbox_id == sandbox_id).map(|c| c.id.clone()).collect::<Vec<_>>()
        };
        for id in lost {
            self.finish(&id, 137, "Error");
        }
        self.tell(sandbox_id, v1::ContainerEventType::ContainerStoppedEvent);
    }

    #[must_use]
    pub fn containers(&self) -> Vec<Container> {
        self.lock().containers.values().cloned().collect()
    }

    #[must_use]
    pub fn sandboxes(&self) -> Vec<Sandbox> {
        self.lock().sandboxes.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, container_id: &str, code: i32, reason: &str) {
        let ended = self.lock().finish(container_id, code, reason);
        if ended {
            self.tell(container_id, v1::ContainerEventType::ContainerStoppedEvent);
        }
    }

    fn tell(&self, id: &str, kind: v1::ContainerEventType) {
        let event = self.lock().event(id, kind);
        // Nobody may be listening.
        let _ = self.events.send(event);
    }
}
