//! Load balancers ask each node whether it has endpoints of a Service (`spec.healthCheckNodePort`, with `externalTrafficPolicy: Local`); they are
//! answered as kube-proxy does (`pkg/proxy/healthcheck`). What is answered where says [`proxy::Table::health_checks`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use proxy::HealthChecks;
use proxy::types::ObjectName;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::client::backoff::until;
use crate::events::{Kind, Recorder};
use crate::serve::plain;

/// A proxy that could not apply what it knows for this long is not healthy: twice the longest pause between two attempts, as upstream.
const LATE: Duration = Duration::from_secs(60);
/// An address that is taken may be free later.
pub(super) const RETRY: Duration = Duration::from_secs(30);
/// By it load balancers can send more to nodes with more endpoints.
const WEIGHT: &str = "x-load-balancing-endpoint-weight";

/// What the proxy knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// As of what the kernel has.
    pub(super) checks: HealthChecks,
    /// Since when changes could not be applied.
    pub(super) behind: Option<Instant>,
    /// When the last were.
    pub(super) applied: Option<Timestamp>,
}

impl Known {
    /// Whether the proxy is not late.
    pub(super) fn is_healthy(&self, now: Instant) -> bool {
        self.behind.is_none_or(|since| now.duration_since(since) < LATE)
    }
}

/// Listens where load balancers ask.
pub(super) struct Server {
    known: watch::Receiver<Known>,
    recorder: Recorder,
    node_name: String,
    /// They end with this.
    tasks: JoinSet<()>,
    listeners: BTreeMap<SocketAddr, AbortHandle>,
    /// Addresses that could not be had, which was said.
    refused: BTreeSet<SocketAddr>,
}

impl Server {
    pub(super) fn new(known: watch::Receiver<Known>, recorder: Recorder, node_name: String) -> Self {
        let (listeners, refused) = (BTreeMap::new(), BTreeSet::new());
        Self { known, recorder, node_name, tasks: JoinSet::new(), listeners, refused }
    }

    /// Follows what the proxy knows, until that ends.
    pub(super) async fn run(mut self) {
        loop {
            let checks = self.known.borrow_and_update().checks.clone();
            self.listen(&checks).await;
            let retry = (!self.refused.is_empty()).then(|| Instant::now() + RETRY);
            // Cancel-safe: changed() loses nothing when dropped; neither does a sleep.
            tokio::select! {
                changed = self.known.changed() => if changed.is_err() { return },
                () = until(retry) => {}
            }
        }
    }

    async fn listen(&mut self, checks: &HealthChecks) {
        while self.tasks.try_join_next().is_some() {}
        self.refused.retain(|address| checks.contains_key(address));
        self.listeners.retain(|address, listener| {
            let is_wanted = checks.contains_key(address) && !listener.is_finished();
            if !is_wanted {
                listener.abort();
            }
            is_wanted
        });
        for (address, check) in checks {
            if self.listeners.contains_key(address) {
                continue;
            }
            match streams::listen::bind(*address) {
                Ok(listener) => {
                    self.refused.remove(address);
                    let (known, at) = (self.known.clone(), *address);
                    let answers = move |_: &_| answer(&known.borrow(), at, Instant::now());
                    self.listeners.insert(at, self.tasks.spawn(plain::serve(listener, answers)));
                }
                Err(error) => self.refuse(*address, &check.service, &error),
            }
        }
    }

    fn refuse(&mut self, address: SocketAddr, service: &ObjectName, error: &std::io::Error) {
        if !self.refused.insert(address) {
            return;
        }
        tracing::warn!(%service, %address, %error, "health checks of load balancers cannot be answered, will retry");
        let message = format!(
            "node {} failed to start healthcheck {:?} on port {}: {error}",
            self.node_name,
            service.to_string(),
            address.port()
        );
        self.recorder.event(&reference(service), Kind::Warning, "FailedToStartServiceHealthcheck", &message);
    }
}

fn reference(service: &ObjectName) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Service".into()),
        namespace: Some(service.namespace.to_string()),
        name: Some(service.name.to_string()),
        ..ObjectReference::default()
    }
}

/// What is answered to any request at an address.
fn answer(known: &Known, at: SocketAddr, now: Instant) -> Response<Full<Bytes>> {
    let Some(check) = known.checks.get(&at) else {
        // The listener ends in a moment.
        return answered(StatusCode::SERVICE_UNAVAILABLE, String::new());
    };
    let is_healthy = known.is_healthy(now);
    let serves = check.local_endpoints > 0 && is_healthy;
    let status = if serves { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // As kube-proxy writes it, tabs and all: some compare texts. Names need no escapes.
    let text = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{}\",\n\t\t\"name\": \"{}\"\n\t}},\n\t\"localEndpoints\": {},\n\t\"serviceProxyHealthy\": {is_healthy}\n}}",
        check.service.namespace, check.service.name, check.local_endpoints
    );
    let mut response = typed(status, "application/json", text);
    response.headers_mut().insert(WEIGHT, HeaderValue::from(check.local_endpoints));
    response
}

/// An answer that says what it is.
pub(super) fn typed(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = answered(status, text);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn answered(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use proxy::HealthCheck;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn check(local_endpoints: usize) -> HealthCheck {
        HealthCheck { service: ObjectName::new("default", "web"), local_endpoints }
    }

    /// An address that nobody has.
    async fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    async fn ask(at: SocketAddr) -> Option<String> {
        let mut stream = TcpStream::connect(at).await.ok()?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
        for _ in 0..200 {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it did not come");
    }

    #[test]
    fn a_proxy_that_is_late_and_a_node_without_endpoints_are_not_used() {
        let (at, now) = (SocketAddr::from(([127, 0, 0, 1], 1)), Instant::now());
        let mut known = Known { checks: [(at, check(2))].into(), ..Known::default() };
        assert_eq!(answer(&known, at, now).status(), StatusCode::OK);
        known.behind = Some(now);
        assert_eq!(answer(&known, at, now + LATE - Duration::from_millis(1)).status(), StatusCode::OK);
        let late = answer(&known, at, now + LATE);
        assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(late.headers()[WEIGHT], "2");
        known.checks.insert(at, check(0));
        assert_eq!(answer(&known, at, now).status(), StatusCode::SERVICE_UNAVAILABLE);
        known.checks.clear();
        assert_eq!(answer(&known, at, now).status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn listeners_follow_what_the_proxy_knows() {
        let (at, other) = (free().await, free().await);
        let (told, known) = watch::channel(Known { checks: [(at, check(1))].into(), ..Known::default() });
        let (recorder, mut events) = Recorder::channel();
        let server = tokio::spawn(Server::new(known, recorder, "n1".into()).run());
        let text = until(|| ask(at)).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("x-load-balancing-endpoint-weight: 1"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let service = serde_json::json!({"namespace": "default", "name": "web"});
        assert_eq!(body, serde_json::json!({"service": service, "localEndpoints": 1, "serviceProxyHealthy": true}));

        told.send_modify(|known| known.checks = [(at, check(0)), (other, check(3))].into());
        until(|| ask(other)).await;
        assert!(ask(at).await.unwrap().starts_with("HTTP/1.1 503"));

        told.send_modify(|known| drop(known.checks.remove(&at)));
        until(async || ask(at).await.is_none().then_some(())).await;
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        told.send_modify(|known| drop(known.checks.insert(taken.local_addr().unwrap(), check(1))));
        let event = events.recv().await.unwrap();
        assert_eq!(
            (event.reason.as_str(), event.object.name.as_deref()),
            ("FailedToStartServiceHealthcheck", Some("web"))
        );
        drop(told);
        server.await.unwrap();
        assert!(ask(other).await.is_none());
    }
}
