//! The node's HTTPS server (port 10250): logs, exec, attach, port-forward, pods, metrics, health.
//!
//! A request goes: TLS (client certificate asked for, not required) -> [`auth`] -> [`routes`]. The serving certificate is
//! read at each handshake, so a renewal needs no restart; before there is one, handshakes fail, as with kubelet.

pub mod auth;
mod cache;
mod containers;
pub mod healthz;
pub mod logline;
pub mod logs;
mod metrics;
mod query;
mod routes;
mod stream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use k8s_openapi::api::core::v1::Pod;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::client::tls;
use crate::config::Config;
use crate::identity::{Identity, certificates};
use auth::{Gate, Peer};
use routes::Router;

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 512;
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
    /// The serving certificate.
    pub certificate: watch::Receiver<Option<Identity>>,
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
}

/// The running server; dropping it ends it and its connections.
#[derive(Debug)]
pub struct ServeHandle {
    task: tokio::task::JoinHandle<()>,
    /// Where it listens.
    pub local: SocketAddr,
}

impl Drop for ServeHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Binds the port and starts serving.
///
/// # Errors
/// See [`Error`].
pub async fn start(inputs: ServeInputs) -> Result<ServeHandle, Error> {
    let kubelet = &inputs.config.kubelet;
    let tls = server_config(&inputs.config, inputs.certificate.clone())?;
    let address = kubelet.address.parse::<IpAddr>().map_err(|e| Error::Listen {
        address: kubelet.address.clone(),
        source: io::Error::new(io::ErrorKind::InvalidInput, e),
    })?;
    let address = SocketAddr::new(address, kubelet.port);
    let failed = |source| Error::Listen { address: address.to_string(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    let gate = Gate::new(
        inputs.client,
        &inputs.config.node.node_name,
        kubelet.authentication.clone(),
        kubelet.authorization.clone(),
    );
    let router = Arc::new(Router { gate, config: inputs.config, runtime: inputs.runtime, pods: inputs.pods });
    let task = tokio::spawn(accept(listener, TlsAcceptor::from(tls), router));
    Ok(ServeHandle { task, local })
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, router: Arc<Router>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    // Dropped with this future, and all connections with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (acceptor, router) = (acceptor.clone(), Arc::clone(&router));
                connections.spawn(async move {
                    if let Err(error) = serve(stream, acceptor, router).await {
                        tracing::debug!(%error, "connection ended");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: pausing lets some be closed.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: Arc<Router>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let presented = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer: Option<Arc<Peer>> = presented.and_then(Peer::from_certificate);
    let service = service_fn(move |request| {
        let (router, peer) = (Arc::clone(&router), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(router.answer(peer.as_deref(), request).await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
    server.http2().timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(30)));
    server.serve_connection_with_upgrades(TokioIo::new(stream), service).await
}

fn server_config(config: &Config, certificate: watch::Receiver<Option<Identity>>) -> Result<Arc<ServerConfig>, Error> {
    let path = match config.kubelet.authentication.x509.client_ca_file.as_str() {
        "" => config.layout.ca_cert(),
        file => file.into(),
    };
    let name = path.display().to_string();
    let bad = |message: String| Error::ClientCa(name.clone(), message);
    let pem = std::fs::read(&path).map_err(|e| bad(e.to_string()))?;
    let roots = roots(&certificates(&name, &pem).map_err(|e| bad(e.to_string()))?).map_err(|e| bad(e.to_string()))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
        .allow_unauthenticated()
        .build()
        .map_err(|e| bad(e.to_string()))?;
    let mut tls = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Current(certificate)));
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would skip the check of the client's certificate.
    tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    Ok(Arc::new(tls))
}

fn roots(certificates: &[CertificateDer<'static>]) -> Result<rustls::RootCertStore, rustls::Error> {
    let mut store = rustls::RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.clone())?;
    }
    Ok(store)
}

/// The serving certificate of this moment.
#[derive(Debug)]
struct Current(watch::Receiver<Option<Identity>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().as_ref().map(|identity| Arc::clone(&identity.certified))
    }
}

#[cfg(test)]
mod tests;
