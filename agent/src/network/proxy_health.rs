//! Load balancers of Services with `externalTrafficPolicy: Cluster` ask each node whether its proxy is to be sent to, at kube-proxy's port;
//! they are answered as by that (`pkg/proxy/healthcheck/proxy_health.go`, KEP-3836).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use super::health::{Known, RETRY, typed};
use crate::metrics::proxy::{HEALTHZ, LIVEZ};
use crate::node::own::{self, OwnNode};
use crate::serve::plain;

/// `healthzBindAddress` of a kube-proxy.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10_256);
/// The Cluster Autoscaler's, of a node that it is about to delete.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// As Go writes a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Answers until this task is ended. A node that nobody knows yet is not asked; a port that is taken, as by a kube-proxy, is taken over when
/// it is free.
pub(super) async fn serve(known: watch::Receiver<Known>, mut own: own::Receiver) {
    if own.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let listener = listen(ADDRESS, "health of the proxy").await;
    plain::serve(listener, move |request: &http::Request<_>| {
        let path = request.uri().path();
        let answer = answer(path, &known.borrow(), own.borrow().as_deref(), Instant::now());
        let counter = match path {
            "/healthz" => Some(&HEALTHZ),
            "/livez" => Some(&LIVEZ),
            _ => None,
        };
        if let Some(counter) = counter {
            counter.count([answer.status().as_u16().to_string().into()]);
        }
        answer
    })
    .await;
}

/// The listener for `what`. An address that is taken is waited for.
pub(super) async fn listen(address: SocketAddr, what: &str) -> TcpListener {
    let mut has_failed = false;
    loop {
        match streams::listen::bind(address) {
            Ok(listener) => return listener,
            Err(error) if has_failed => tracing::debug!(%address, %error, what, "not served"),
            Err(error) => tracing::warn!(%address, %error, what, "not served, will retry"),
        }
        has_failed = true;
        tokio::time::sleep(RETRY).await;
    }
}

/// A node that is deleted, or is about to be, is for no new connections, however well its proxy does.
fn is_eligible(own: Option<&OwnNode>) -> bool {
    own.is_some_and(|own| {
        own.uid.is_some() && !own.is_being_deleted && own.taints.iter().all(|taint| taint.key != TO_BE_DELETED)
    })
}

fn answer(path: &str, known: &Known, own: Option<&OwnNode>, now: Instant) -> Response<Full<Bytes>> {
    let eligible = match path {
        "/healthz" => Some(is_eligible(own)),
        "/livez" => None,
        _ => return typed(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n".into()),
    };
    let is_healthy = known.is_healthy(now);
    let status = if is_well(is_healthy, eligible) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let health = Health::new(known.applied, eligible, is_healthy, Timestamp::now());
    typed(status, "application/json", serde_json::to_string(&health).unwrap_or_default())
}

/// A node that is not asked about counts as eligible.
fn is_well(healthy: bool, eligible: Option<bool>) -> bool {
    healthy && eligible != Some(false)
}

/// In Go's order: some compare texts.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    /// One table is of both families, which kube-proxy has a proxier for each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'static str, FamilyHealth>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyHealth {
    last_updated: String,
    healthy: bool,
}

impl Health {
    fn new(applied: Option<Timestamp>, eligible: Option<bool>, healthy: bool, now: Timestamp) -> Self {
        let applied = applied.map(|at| at.to_string());
        let families = applied
            .iter()
            .flat_map(|at| ["IPv4", "IPv6"].map(|family| (family, FamilyHealth { last_updated: at.clone(), healthy })));
        let status = families.collect();
        // What is well is up to date.
        let last_updated =
            if is_well(healthy, eligible) { now.to_string() } else { applied.unwrap_or_else(|| NEVER.to_owned()) };
        Self { last_updated, current_time: now.to_string(), node_eligible: eligible, healthy, status }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn node() -> OwnNode {
        OwnNode { uid: Some("u".into()), ..OwnNode::default() }
    }

    fn codes(known: &Known, own: Option<&OwnNode>, now: Instant) -> [u16; 2] {
        ["/healthz", "/livez"].map(|path| answer(path, known, own, now).status().as_u16())
    }

    #[test]
    fn a_late_proxy_is_not_well_and_a_node_that_goes_is_only_alive() {
        let now = Instant::now();
        let mut known = Known::default();
        assert_eq!(codes(&known, Some(&node()), now), [200, 200], "it starts");
        known.behind = Some(now);
        assert_eq!(codes(&known, Some(&node()), now), [200, 200]);
        assert_eq!(codes(&known, Some(&node()), now + Duration::from_secs(61)), [503, 503]);
        known.behind = None;
        let taint = serde_json::from_value(json!({"key": TO_BE_DELETED, "effect": "NoSchedule"})).unwrap();
        let tainted = OwnNode { taints: vec![taint], ..node() };
        let going = OwnNode { is_being_deleted: true, ..node() };
        for own in [Some(&tainted), Some(&going), Some(&OwnNode::default()), None] {
            assert_eq!(codes(&known, own, now), [503, 200]);
        }
        assert_eq!(answer("/", &known, None, now).status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn the_body_is_kube_proxys() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (applied, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:01:00Z"));
        let text =
            |applied, eligible, healthy| serde_json::to_string(&Health::new(applied, eligible, healthy, now)).unwrap();
        assert_eq!(
            text(Some(applied), Some(true), true),
            r#"{"lastUpdated":"2026-01-01T00:01:00Z","currentTime":"2026-01-01T00:01:00Z","nodeEligible":true,"healthy":true,"status":{"IPv4":{"lastUpdated":"2026-01-01T00:00:00Z","healthy":true},"IPv6":{"lastUpdated":"2026-01-01T00:00:00Z","healthy":true}}}"#
        );
        assert_eq!(
            text(Some(applied), None, false),
            r#"{"lastUpdated":"2026-01-01T00:00:00Z","currentTime":"2026-01-01T00:01:00Z","healthy":false,"status":{"IPv4":{"lastUpdated":"2026-01-01T00:00:00Z","healthy":false},"IPv6":{"lastUpdated":"2026-01-01T00:00:00Z","healthy":false}}}"#
        );
        assert_eq!(
            text(None, Some(false), true),
            r#"{"lastUpdated":"0001-01-01T00:00:00Z","currentTime":"2026-01-01T00:01:00Z","nodeEligible":false,"healthy":true}"#
        );
    }
}
