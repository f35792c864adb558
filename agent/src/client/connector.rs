//! TCP and TLS to a server, as a hyper connector.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use http::uri::Authority;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::race::{Attempt, race};
use super::servers::Failover;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_PORT: u16 = 6443;
/// How long an address that does not answer holds up the next one (RFC 8305, Connection Attempt Delay).
const HEAD_START: Duration = Duration::from_millis(250);

/// Where the API server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    host: String,
    port: u16,
}

/// An address that names no server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address of the form HOST[:PORT]")]
pub struct ServerError(String);

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name does not resolve, or nobody answers at the port.
    #[error("cannot connect to {server}")]
    Tcp {
        /// The server.
        server: Server,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("tls handshake with {server} failed")]
    Tls {
        /// The server.
        server: Server,
        /// The cause; rustls' error inside.
        #[source]
        source: io::Error,
    },
    /// Nothing came in time.
    #[error("{0} does not answer within 10 s")]
    Timeout(Server),
}

impl Server {
    /// What URLs and the `Host` header say.
    #[must_use]
    pub fn authority(&self) -> Authority {
        // Both parts were checked by `from_str`.
        Authority::from_str(&self.to_string()).unwrap_or_else(|_| Authority::from_static("localhost"))
    }

    /// Host name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connects TCP and TLS.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(&self, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, ConnectError> {
        let connecting = async {
            let tcp = |source| ConnectError::Tcp { server: self.clone(), source };
            let stream = self.reach().await.map_err(tcp)?;
            stream.set_nodelay(true).map_err(tcp)?;
            let name = ServerName::try_from(self.host.clone())
                .map_err(|e| tcp(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
            TlsConnector::from(config)
                .connect(name, stream)
                .await
                .map_err(|source| ConnectError::Tls { server: self.clone(), source })
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .unwrap_or_else(|_| Err(ConnectError::Timeout(self.clone())))
    }

    /// Connects to the first address of the name that answers: a cluster's name may be that of several masters.
    async fn reach(&self) -> io::Result<TcpStream> {
        let addresses = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        let attempts = addresses.map(|address| -> Attempt<'_, _, _> { Box::pin(TcpStream::connect(address)) });
        let none = || Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        race(attempts.collect(), HEAD_START).await.unwrap_or_else(none)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Server {
    type Err = ServerError;

    /// `HOST`, `HOST:PORT`, `[V6]:PORT`, with or without `https://` in front.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || ServerError(text.to_owned());
        let bare = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
        if let Ok(address) = bare.parse::<std::net::Ipv6Addr>() {
            return Ok(Self { host: address.to_string(), port: DEFAULT_PORT });
        }
        let authority = Authority::from_str(bare).map_err(|_| fail())?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority.port() {
            Some(port) => port.as_str().parse().ok().filter(|p| *p != 0).ok_or_else(fail)?,
            None if authority.as_str() != authority.host() => return Err(fail()),
            None => DEFAULT_PORT,
        };
        if authority.as_str().contains('@') || ServerName::try_from(host.as_str()).is_err() {
            return Err(fail());
        }
        Ok(Self { host, port })
    }
}

/// hyper's view of [`Failover::connect`].
#[derive(Clone)]
pub(super) struct Connector {
    failover: Failover,
    config: Arc<ClientConfig>,
}

impl Connector {
    pub(super) fn new(failover: Failover, config: Arc<ClientConfig>) -> Self {
        Self { failover, config }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Stream, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let stream = connector.failover.connect(&connector.config).await?;
            Ok(Stream(TokioIo::new(stream)))
        })
    }
}

/// A connection that tells hyper which protocol ALPN chose.
pub(super) struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        if self.0.inner().get_ref().1.alpn_protocol() == Some(b"h2") { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_kubernetes_default_port() {
        for (text, expected) in [
            ("10.0.0.1", "10.0.0.1:6443"),
            ("10.0.0.1:443", "10.0.0.1:443"),
            ("https://master.example:8443/", "master.example:8443"),
            ("fd00::1", "[fd00::1]:6443"),
            ("[fd00::1]:1", "[fd00::1]:1"),
        ] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", ":6443", "a:b", "host:0", "host:", "user@host", "a b", "http://host"] {
            assert!(text.parse::<Server>().is_err(), "{text:?}");
        }
    }
}
