//! The node's HTTPS server (port 10250): logs, exec, attach, port-forward, pods, metrics, health.
//!
//! A request goes: TLS (client certificate asked for, not required) -> [`auth`] -> [`routes`]. The serving certificate is
//! read at each handshake, so a renewal needs no restart; before there is one, handshakes fail, as with kubelet.

pub mod auth;
mod cache;
mod container_logs;
mod containers;
pub mod healthz;
mod idle;
pub mod logline;
pub mod logs;
pub(crate) mod metrics;
mod node_logs;
pub mod plain;
mod query;
mod routes;
mod sessions;
mod stream;
mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use k8s_openapi::api::core::v1::Pod;
use streams::connections::{Connections, IDLE, Limits, Place};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::config::Config;
use crate::identity::Identity;
use crate::identity::trust::Roots;
use crate::stats;
use crate::tasks::Tasks;
use auth::{Gate, Peer};
use routes::Router;

/// Connections at a time. Who asks for logs and sessions, the API server, shows a certificate.
const CONNECTIONS: Limits = Limits { strangers: 512, known: 512 };
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The pods that the node knows of, for `/pods` and for telling a missing container from a missing pod.
pub trait Pods: Send + Sync + 'static {
    /// Every pod bound to the node, with its latest status.
    fn all(&self) -> Vec<Arc<Pod>>;
    /// One of them.
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<Pod>>;
}

/// What the server needs.
pub struct ServeInputs {
    /// Configuration.
    pub config: Arc<Config>,
    /// For reviews of tokens and access.
    pub client: kube::Client,
    /// The container runtime.
    pub runtime: cri::Client,
    /// The node's pods.
    pub pods: Arc<dyn Pods>,
    /// What they use.
    pub stats: Arc<stats::Provider>,
    /// The serving certificate.
    pub certificate: watch::Receiver<Option<Identity>>,
    /// Whose clients are verified, unless the configuration names a file.
    pub authorities: watch::Receiver<Roots>,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port is taken, or the address is not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The CA of clients cannot be read.
    #[error("{0}: cannot be used as the CA of clients: {1}")]
    ClientCa(String, String),
    /// Nothing that both sides could speak is left of what was asked for.
    #[error("no TLS is left by tlsMinVersion, tlsCipherSuites and tlsCurvePreferences")]
    Tls(#[source] rustls::Error),
}

/// The running servers; dropping it ends them and their connections.
#[derive(Debug)]
pub struct ServeHandle {
    pub(crate) tasks: Tasks,
    /// Where the HTTPS server listens.
    pub local: SocketAddr,
    /// Where the read-only one does.
    pub read_only: Option<SocketAddr>,
}

/// Binds the ports and starts serving.
///
/// # Errors
/// See [`Error`].
pub async fn start(inputs: ServeInputs) -> Result<ServeHandle, Error> {
    let kubelet = &inputs.config.kubelet;
    let tls = tls::server_config(&inputs.config, inputs.certificate.clone(), inputs.authorities.clone())?;
    let listener = listen(&kubelet.address, kubelet.port)?;
    let plain = match kubelet.read_only_port {
        0 => None,
        port => Some(listen(&kubelet.address, port)?),
    };
    let local = local(&listener)?;
    let read_only = plain.as_ref().map(self::local).transpose()?;
    let gate = Gate::new(
        inputs.client,
        &inputs.config.node.node_name,
        kubelet.authentication.clone(),
        kubelet.authorization.clone(),
    );
    let router = |gate| Router {
        gate,
        config: Arc::clone(&inputs.config),
        runtime: inputs.runtime.clone(),
        pods: Arc::clone(&inputs.pods),
        stats: Arc::clone(&inputs.stats),
    };
    let mut tasks =
        Tasks::from([tokio::spawn(accept(listener, Some(TlsAcceptor::from(tls)), Arc::new(router(Some(gate)))))]);
    tasks.extend(plain.map(|listener| tokio::spawn(accept(listener, None, Arc::new(router(None))))));
    Ok(ServeHandle { tasks, local, read_only })
}

fn listen(address: &str, port: u16) -> Result<TcpListener, Error> {
    let failed = |source| Error::Listen { address: format!("{address}:{port}"), source };
    let ip = address.parse::<IpAddr>().map_err(|e| failed(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
    streams::listen::bind(SocketAddr::new(ip, port)).map_err(failed)
}

fn local(listener: &TcpListener) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(|source| Error::Listen { address: String::new(), source })
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, router: Arc<Router>) {
    let places = Connections::new(CONNECTIONS);
    // Dropped with this future, and all connections with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, address)) => match places.enter(address.ip()) {
                Some(place) => {
                    connections.spawn(connection(stream, acceptor.clone(), Arc::clone(&router), place));
                }
                None => tracing::debug!(address = %address.ip().to_canonical(), "no place for a connection"),
            },
            Err(error) => {
                // Out of file descriptors, most likely: pausing lets some be closed.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, router: Arc<Router>, place: Place) {
    let needed = place.needed();
    let served = async {
        match acceptor {
            Some(acceptor) => secure(stream, acceptor, router, place).await,
            None => serve(stream, None, router, place).await,
        }
    };
    // Only idle connections lose their places: nothing is lost.
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::debug!(%error, "connection ended");
        },
        () = needed => tracing::debug!("an idle connection made place for another"),
    }
}

async fn secure(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: Arc<Router>,
    mut place: Place,
) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let presented = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer: Option<Arc<Peer>> = presented.and_then(Peer::from_certificate);
    if peer.is_some() && !place.recognise() {
        tracing::debug!("no place for a connection with a certificate");
        return Ok(());
    }
    serve(stream, peer, router, place).await
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Option<Arc<Peer>>,
    router: Arc<Router>,
    place: Place,
) -> Result<(), BoxError> {
    let requests = place.requests();
    let service = service_fn(move |request| {
        let (router, peer, requests) = (Arc::clone(&router), peer.clone(), requests.clone());
        async move { Ok::<_, std::convert::Infallible>(requests.answer(router.answer(peer.as_deref(), request)).await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    server.http2().timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(30)));
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    place.serve(connection, std::future::pending()).await
}

#[cfg(test)]
mod tests;
