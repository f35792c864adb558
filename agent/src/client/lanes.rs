//! The connections of one client. A server takes only so many requests at a time on an HTTP/2 connection (100 at
//! kube-apiserver), and watches stay for long: a full connection gets a sister, as client-go does it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::Body;
use rustls::ClientConfig;

use super::connector::Connector;
use super::servers::{Failover, Servers};

/// As client-go: an idle HTTP/2 connection is probed after 30 s and given up 15 s later.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(90);
/// Requests under way on one connection.
const MOST: usize = 80;

pub(super) type Http = HyperClient<Connector, Body>;

/// Connections with the same credentials.
pub(super) struct Lanes {
    failover: Failover,
    config: Arc<ClientConfig>,
    lanes: Vec<Lane>,
}

struct Lane {
    http: Http,
    /// Shared with every request that is under way.
    load: Load,
}

/// One request; until it is dropped it takes its place.
pub(super) type Load = Arc<()>;

impl Lanes {
    pub(super) fn new(servers: Servers, config: Arc<ClientConfig>) -> Self {
        Self { failover: Failover::new(servers), config, lanes: Vec::new() }
    }

    /// Later requests use `config`. Those under way keep their connections.
    pub(super) fn replace(&mut self, config: Arc<ClientConfig>) {
        self.config = config;
        self.lanes.clear();
    }

    /// The first connection with a place, and that place. Connections that are idle go, but for one.
    pub(super) fn pick(&mut self) -> (Http, Load) {
        let mut spare = 0;
        self.lanes.retain(|lane| {
            spare += usize::from(lane.places() == MOST);
            lane.places() < MOST || spare == 1
        });
        if let Some(lane) = self.lanes.iter().find(|lane| lane.places() > 0) {
            return lane.take();
        }
        let lane = Lane { http: build(&self.failover, Arc::clone(&self.config)), load: Arc::default() };
        let taken = lane.take();
        self.lanes.push(lane);
        taken
    }
}

impl Lane {
    fn places(&self) -> usize {
        MOST.saturating_sub(Arc::strong_count(&self.load) - 1)
    }

    fn take(&self) -> (Http, Load) {
        (self.http.clone(), Arc::clone(&self.load))
    }
}

fn build(failover: &Failover, config: Arc<ClientConfig>) -> Http {
    HyperClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(4)
        .http2_keep_alive_interval(PING_AFTER)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_initial_stream_window_size(256 * 1024)
        .http2_initial_connection_window_size(1024 * 1024)
        .build(Connector::new(failover.clone(), config))
}

/// An answer that keeps its place on the connection until it was read or dropped.
pub struct Answer {
    body: Incoming,
    _load: Load,
}

impl Answer {
    pub(super) fn new(body: Incoming, load: Load) -> Self {
        Self { body, _load: load }
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_connection_gets_a_sister_and_idle_ones_go() {
        let roots = Arc::new(rustls::RootCertStore::empty());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        let mut lanes = Lanes::new("127.0.0.1".parse().unwrap(), config);
        let mut loads: Vec<_> = (0..MOST).map(|_| lanes.pick().1).collect();
        assert_eq!(lanes.lanes.len(), 1);
        loads.push(lanes.pick().1);
        assert_eq!(lanes.lanes.len(), 2);
        // A place that is free again is taken before the sister's.
        drop(loads.swap_remove(0));
        loads.push(lanes.pick().1);
        assert_eq!(lanes.lanes.iter().map(Lane::places).collect::<Vec<_>>(), [0, MOST - 1]);
        drop(loads);
        let last = lanes.pick().1;
        assert_eq!(lanes.lanes.iter().map(Lane::places).collect::<Vec<_>>(), [MOST - 1]);
        drop(last);
    }
}
