//! The API client: `kube::Client` over a connection of our own, so that credentials can be renewed while it runs.
//!
//! kube's bundled connector reads a certificate once. Ours keeps the current hyper clients behind a lock: a renewal
//! replaces them, later requests use the new certificate, and watches that are still open end on their own within minutes,
//! long before the old certificate expires.

pub mod backoff;
mod connector;
mod lanes;
pub mod pace;
mod race;
mod servers;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
pub mod watch;

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderValue, Request, Response, header};
use kube::client::Body;
use rustls::ClientConfig;

use crate::metrics::families::{REST_DURATION, REST_REQUESTS};
pub use connector::{ConnectError, Server};
use lanes::{Answer, Lanes};
use pace::Pace;
pub use servers::Servers;

/// Who a client is at first: later renewals go through [`Renewal`].
#[derive(Debug)]
pub enum Credentials {
    /// A bootstrap token.
    Token(String),
    /// The certificate in the TLS configuration.
    Certificate,
}

/// Replaces the TLS configuration of a running client.
#[derive(Clone)]
pub struct Renewal {
    current: Arc<Mutex<Lanes>>,
}

impl Renewal {
    /// Requests from now on use `config`.
    pub fn replace(&self, config: Arc<ClientConfig>) {
        lock(&self.current).replace(config);
    }
}

fn lock(lanes: &Mutex<Lanes>) -> MutexGuard<'_, Lanes> {
    lanes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client of whichever of `servers` answers, that trusts and presents what `config` says.
///
/// # Errors
/// A token that cannot be an HTTP header.
pub fn new(
    servers: &Servers,
    config: Arc<ClientConfig>,
    credentials: &Credentials,
) -> Result<(kube::Client, Renewal), header::InvalidHeaderValue> {
    paced(servers, config, credentials, None)
}

/// The same, with no more requests than `pace` allows.
///
/// # Errors
/// As [`new`].
pub fn paced(
    servers: &Servers,
    config: Arc<ClientConfig>,
    credentials: &Credentials,
    pace: Option<Pace>,
) -> Result<(kube::Client, Renewal), header::InvalidHeaderValue> {
    let authorization = match credentials {
        Credentials::Token(token) => {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
            value.set_sensitive(true);
            Some(value)
        }
        Credentials::Certificate => None,
    };
    let current = Arc::new(Mutex::new(Lanes::new(servers.clone(), config)));
    let authority = servers.first().authority();
    let service = Service { current: Arc::clone(&current), authority, authorization, pace };
    let client = kube::Client::new(service, "default");
    Ok((client, Renewal { current }))
}

/// Sends requests of kube, which have a path only, to the cluster's servers.
#[derive(Clone)]
struct Service {
    current: Arc<Mutex<Lanes>>,
    authority: Authority,
    authorization: Option<HeaderValue>,
    pace: Option<Pace>,
}

impl Service {
    fn absolute(&self, request: &mut Request<Body>) -> Result<(), http::Error> {
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() =
            Uri::builder().scheme(Scheme::HTTPS).authority(self.authority.clone()).path_and_query(path).build()?;
        let headers = request.headers_mut();
        headers
            .insert(header::USER_AGENT, HeaderValue::from_static(concat!("keelson-agent/", env!("CARGO_PKG_VERSION"))));
        if let Some(value) = &self.authorization {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        Ok(())
    }
}

impl tower::Service<Request<Body>> for Service {
    type Response = Response<Answer>;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let prepared = self.absolute(&mut request);
        let current = Arc::clone(&self.current);
        let wait = self.pace.as_ref().map(|pace| pace.wait(request.method(), request.uri().path()));
        let (method, host) = (request.method().to_string(), self.authority.to_string());
        Box::pin(async move {
            prepared?;
            if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
                tokio::time::sleep(wait).await;
            }
            // A request that waits takes no place.
            let (http, load) = lock(&current).pick();
            let begun = Instant::now();
            let answer = http.request(request).await;
            let code: Cow<'static, str> =
                answer.as_ref().map_or("<error>".into(), |answer| answer.status().as_str().to_owned().into());
            REST_DURATION.observe([method.clone().into(), host.clone().into()], begun.elapsed());
            REST_REQUESTS.count([code, method.into(), host.into()]);
            Ok(answer?.map(|body| Answer::new(body, load)))
        })
    }
}

/// The `Status.code` of an error that the API server answered with.
#[must_use]
pub fn api_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Whether the API server says that we may not, or that there is no such thing: it will say so again.
#[must_use]
pub fn is_refused(error: &kube::Error) -> bool {
    matches!(api_code(error), Some(401 | 403 | 404))
}

/// Whether an error is the API server's `NotFound`.
#[must_use]
pub fn is_not_found(error: &kube::Error) -> bool {
    api_code(error) == Some(404)
}
