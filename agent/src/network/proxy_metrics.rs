//! What the proxy counts, at the port of this machine alone where kube-proxy tells it (`serveMetrics` of cmd/kube-proxy).

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::health::typed;
use super::proxy_health::listen;
use crate::exposition::{CONTENT_TYPE, Text};
use crate::metrics::{families, proxy};
use crate::serve::metrics::process;
use crate::serve::plain;

/// `metricsBindAddress` of a kube-proxy.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10_249);
const PLAIN: &str = "text/plain; charset=utf-8";

/// Answers until this task is ended.
pub(super) async fn serve() {
    let listener = listen(ADDRESS, "metrics of the proxy").await;
    plain::serve(listener, |request| answer(request.uri().path())).await;
}

fn answer(path: &str) -> Response<Full<Bytes>> {
    match path {
        "/metrics" => typed(StatusCode::OK, CONTENT_TYPE, metrics()),
        "/healthz" => typed(StatusCode::OK, PLAIN, "ok".into()),
        "/proxyMode" => typed(StatusCode::OK, PLAIN, "nftables".into()),
        _ => typed(StatusCode::NOT_FOUND, PLAIN, "404 page not found\n".into()),
    }
}

/// The process and its requests are those of the agent, of which the proxy is a part.
fn metrics() -> String {
    let mut text = Text::default();
    proxy::write(&mut text);
    families::requests(&mut text);
    process() + &text.into_string()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn it_is_told_as_kube_proxy_tells_it() {
        let told = async |path: &str| {
            let answer = answer(path);
            let status = answer.status().as_u16();
            (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
        };
        assert_eq!(told("/healthz").await, (200, "ok".into()));
        assert_eq!(told("/proxyMode").await, (200, "nftables".into()));
        assert_eq!(told("/").await.0, 404);
        let (_, text) = told("/metrics").await;
        for family in ["kubeproxy_sync_proxy_rules_service_changes_total ", "process_resident_memory_bytes "] {
            assert!(text.lines().any(|line| line.starts_with(family)), "no {family} in {text}");
        }
    }
}
