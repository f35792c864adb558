//! Connections to servers that users named: webhooks and aggregated API servers. They are kept for a while, so that not each
//! request begins with a handshake.

use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;

use crate::body::Body;
use crate::trust;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(90);
/// How many of them are kept for one address.
const MOST_IDLE: usize = 16;

pub(crate) type Connections = Client<HttpsConnector<HttpConnector>, Body>;

/// Made when they are needed first: the machine's roots are not read while others wait for a commit.
pub(crate) type LazyConnections = Arc<OnceLock<Result<Connections, String>>>;

/// The certificate that this server shows.
pub(crate) type Identity = Option<Arc<dyn ResolvesClientCert>>;

/// Which certificates of a server are believed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Trust {
    /// The name that they have.
    pub name: String,
    /// `caBundle`: PEM in base64; empty for the roots of this machine.
    pub bundle: String,
    /// `insecureSkipTLSVerify`
    pub insecure: bool,
}

/// Connections to servers with such certificates, wherever they are.
pub(crate) fn connections(trust: &Trust, identity: &Identity) -> Result<Connections, String> {
    let name = ServerName::try_from(trust.name.clone()).map_err(|error| error.to_string())?;
    let config = ClientConfig::builder();
    let config = if trust.insecure {
        let provider = Arc::clone(config.crypto_provider());
        config.dangerous().with_custom_certificate_verifier(verifiers::any_server(provider))
    } else {
        config.with_root_certificates(trust::roots(&trust.bundle).map_err(|error| error.to_string())?)
    };
    let config = match identity {
        Some(identity) => config.with_client_cert_resolver(Arc::clone(identity)),
        None => config.with_no_client_auth(),
    };
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .with_server_name_resolver(FixedServerNameResolver::new(name))
        .enable_http1()
        .wrap_connector(http);
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(MOST_IDLE).set_host(true);
    Ok(builder.build(connector))
}

/// Why it failed first of all: hyper's own texts say only where.
pub(crate) fn root(error: &hyper_util::client::legacy::Error) -> String {
    let mut shown = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        shown = inner.to_string();
        source = inner.source();
    }
    shown
}

/// Whether there was a connection, but no agreement on how to encrypt it.
pub(crate) fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || wrapped.is_some_and(|inner| is_tls(inner)) || error.source().is_some_and(is_tls)
}
