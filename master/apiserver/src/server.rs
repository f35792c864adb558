//! The server as a whole: what it is made of, and its listener.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use admission::{Chain, Context, PriorityClasses};
use auth::{Authenticator, Authorizer, Observer, Rbac, Reviews, UserInfo};
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use ipnet::IpNet;
use rustls::ServerConfig;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use store::{Backend, BackendError, Options, Store};
use streams::connections::{Connections, IDLE, Limits, Place};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::aggregation::Aggregation;
use crate::allocate::Allocators;
use crate::flow_control::FlowControl;
use crate::hooks::{CacheLookup, Followers};
use crate::in_process::InProcess;
use crate::kinds::Kinds;
use crate::road::Origin;
use crate::subresources::Kubelets;
use crate::webhooks::Configured;

/// How long a client may take for its TLS handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long requests that run may go on when the server stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Connections at once, so that descriptors are left for everything else.
const CONNECTIONS: Limits = Limits { strangers: 8_192, known: 8_192 };

/// Who may come in, and what he may do.
pub struct Security {
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub rbac: Arc<Rbac>,
    /// Fed from the cache in the order of commits: `Facts`, `Rbac`, `NodeGraph`.
    pub observers: Vec<Arc<dyn Observer>>,
}

/// Where the server is and what addresses it gives out.
pub struct Network {
    /// Where nodes and pods reach this server: the endpoint of the `kubernetes` Service.
    pub advertise: SocketAddr,
    /// `--service-cluster-ip-range`; its first address is the `kubernetes` Service's.
    pub services: IpNet,
    /// `--service-node-port-range`
    pub node_ports: RangeInclusive<u16>,
}

/// Everything a server is made of.
pub struct Config {
    pub backend: Arc<dyn Backend>,
    pub security: Security,
    pub network: Network,
    /// TLS with the client certificate that agents take for the API server's; without one, `log`, `exec` and their kin
    /// are refused.
    pub kubelet_client: Option<Arc<rustls::ClientConfig>>,
    /// The certificate by which aggregated API servers know the front proxy, which tells them who asks.
    pub proxy_client: Option<Arc<dyn ResolvesClientCert>>,
    /// Tells front proxies by their certificates: who they are is said by headers. Nobody else's certificates may pass it.
    pub front_proxies: Option<Arc<dyn ClientCertVerifier>>,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the store cannot be loaded")]
    Store(#[from] BackendError),
}

/// The API server; clones are handles to the same one.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) core: Arc<Core>,
}

/// What handlers work with.
pub(crate) struct Core {
    pub store: Arc<Store>,
    pub kinds: Arc<Kinds>,
    pub aggregation: Arc<Aggregation>,
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub reviews: Reviews,
    pub admission: Chain,
    pub allocators: Arc<Allocators>,
    pub network: Network,
    pub kubelets: Kubelets,
    pub front_proxies: Option<Arc<dyn ClientCertVerifier>>,
    pub flow_control: Arc<FlowControl>,
    pub configured: Arc<Configured>,
}

impl ApiServer {
    /// Loads the store. Blocks: call it outside of the runtime's workers or before it is busy.
    pub fn open(config: Config) -> Result<Self, StartError> {
        let Config { backend, security, network, kubelet_client, proxy_client, front_proxies } = config;
        let Security { authenticator, authorizer, rbac, mut observers } = security;
        let priority_classes = Arc::new(PriorityClasses::new());
        observers.push(Arc::clone(&priority_classes) as Arc<dyn Observer>);
        let kinds = Arc::new(Kinds::new());
        observers.push(Arc::clone(&kinds) as Arc<dyn Observer>);
        let aggregation = Arc::new(Aggregation::new(proxy_client));
        observers.push(Arc::clone(&aggregation) as Arc<dyn Observer>);
        let flow_control = Arc::new(FlowControl::new());
        observers.push(Arc::clone(&flow_control) as Arc<dyn Observer>);
        let configured = Arc::new(Configured::default());
        observers.push(Arc::clone(&configured) as Arc<dyn Observer>);
        let allocators = Arc::new(Allocators::new(network.services, network.node_ports.clone()));
        observers.push(Arc::clone(&allocators) as Arc<dyn Observer>);
        let followers = Arc::new(Followers::new(observers));
        let store = Arc::new(Store::open(backend, followers, Options::default())?);
        let context = Context {
            lookup: Arc::new(CacheLookup(Arc::clone(&store))),
            authorizer: Arc::clone(&authorizer),
            rbac: Arc::clone(&rbac),
            priority_classes,
        };
        let reviews = Reviews::new(Arc::clone(&authenticator), Arc::clone(&authorizer), rbac);
        let core = Core {
            store,
            kinds,
            aggregation,
            authenticator,
            authorizer,
            reviews,
            admission: Chain::new(context),
            allocators,
            network,
            kubelets: Kubelets::new(kubelet_client),
            front_proxies,
            flow_control,
            configured,
        };
        Ok(ApiServer { core: Arc::new(core) })
    }

    /// A client's transport without a connection, as `user`, who is authorized as anyone else. `agent` is its User-Agent,
    /// which managed fields name it by.
    pub fn in_process(&self, user: UserInfo, agent: &'static str) -> InProcess {
        InProcess::new(Arc::clone(&self.core), user, agent)
    }

    /// Makes what every cluster has: the namespaces and the `kubernetes` Service with its endpoints. Harmless to repeat.
    pub async fn bootstrap(&self) -> Result<(), crate::BootstrapError> {
        crate::bootstrap::run(self).await
    }

    /// Resolves when the store takes no more writes (its disk failed): only opening it anew helps.
    pub async fn closed(&self) {
        self.core.store.closed().await;
    }

    /// Asks the server that an APIService names for the version that it should have; otherwise says why not.
    ///
    /// # Errors
    /// The message of the condition `Available`, as upstream words it.
    pub async fn check_api_service(&self, name: &str) -> Result<(), String> {
        self.core.aggregation.check(&self.core, name).await
    }

    /// Serves connections until `shutdown` resolves, then lets running requests end for a little while. Client
    /// certificates must be optional in `tls`, and verified when there is one.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<ServerConfig>, shutdown: impl Future<Output = ()>) {
        let acceptor = TlsAcceptor::from(tls);
        let places = Connections::new(CONNECTIONS);
        let (connections, stop) = (TaskTracker::new(), CancellationToken::new());
        // They end with this.
        let mut followers = JoinSet::new();
        followers.spawn(crate::events::sweep(Arc::downgrade(&self.core)));
        followers.spawn(crate::aggregation::follow(Arc::downgrade(&self.core)));
        followers.spawn(crate::flow_control::follow(Arc::downgrade(&self.core)));
        followers.spawn(crate::service_cidrs::follow(Arc::downgrade(&self.core)));
        tokio::pin!(shutdown);
        loop {
            // Both arms are cancel-safe: accepting loses nothing when dropped.
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, address)) => match places.enter(address.ip()) {
                    Some(place) => {
                        let (core, needed) = (Arc::clone(&self.core), place.needed());
                        let connection = connection(core, acceptor.clone(), tcp, place, stop.clone());
                        connections.spawn(async move {
                            // Only idle connections lose their places: nothing is lost.
                            tokio::select! {
                                () = connection => {}
                                () = needed => tracing::debug!("an idle connection made place for another"),
                            }
                        });
                    }
                    None => tracing::debug!(address = %address.ip().to_canonical(), "no place for a connection"),
                },
                Err(error) => {
                    // Out of descriptors, most likely: others must close before it gets better.
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        followers.abort_all();
        stop.cancel();
        connections.close();
        let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
    }
}

impl Core {
    /// The address of the `kubernetes` Service.
    pub(crate) fn own_service_ip(&self) -> Option<IpAddr> {
        self.network.services.hosts().next()
    }
}

/// Who is at the other end, as far as certificates say.
fn origin(core: &Core, chain: &[CertificateDer<'_>]) -> Origin {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Origin::Connection { certificate: None, is_front_proxy: false };
    };
    let verified = |verifier: &Arc<dyn ClientCertVerifier>| {
        verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).is_ok()
    };
    let is_front_proxy = core.front_proxies.as_ref().is_some_and(verified);
    Origin::Connection { certificate: Some(Arc::new(leaf.clone().into_owned())), is_front_proxy }
}

async fn connection(core: Arc<Core>, acceptor: TlsAcceptor, tcp: TcpStream, mut place: Place, stop: CancellationToken) {
    // Small answers must not wait for the acknowledgement of the one before.
    let _ = tcp.set_nodelay(true);
    let tls = match tokio::time::timeout(PATIENCE, acceptor.accept(tcp)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let origin = origin(&core, tls.get_ref().1.peer_certificates().unwrap_or_default());
    if matches!(origin, Origin::Connection { certificate: Some(_), .. }) && !place.recognise() {
        return tracing::debug!("no place for a connection with a certificate");
    }
    let requests = place.requests();
    let service = service_fn(move |request: Request<Incoming>| {
        let (core, origin, requests) = (Arc::clone(&core), origin.clone(), requests.clone());
        async move {
            let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            Ok::<_, std::convert::Infallible>(requests.answer(crate::road::answer(core, request, origin)).await)
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(250)
        .max_header_list_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
    if let Err(error) = place.serve(serving.into_owned(), stop.cancelled_owned()).await {
        tracing::debug!(%error, "connection ended");
    }
}
