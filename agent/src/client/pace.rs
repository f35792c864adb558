//! `kubeAPIQPS` and `kubeAPIBurst`: how many requests the API server gets. Where neither is set there is no limit, unlike upstream's of 50:
//! the API server defends itself (API priority and fairness), and starting many pods at once is no attack.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;

use crate::config::KubeletConfiguration;
use crate::rate::TokenBucket;

/// Upstream's, where one of the two is set.
const QPS: i32 = 50;
const BURST: i32 = 100;

/// So many requests, for all clones of a client together.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Mutex<TokenBucket>>);

/// What a configuration allows.
#[must_use]
pub fn limit(kubelet: &KubeletConfiguration) -> Option<Pace> {
    if kubelet.kube_api_qps.is_none() && kubelet.kube_api_burst.is_none() {
        return None;
    }
    let or = |set: Option<i32>, default: i32| set.filter(|set| *set > 0).unwrap_or(default);
    let bucket = TokenBucket::per_second(or(kubelet.kube_api_qps, QPS), or(kubelet.kube_api_burst, BURST));
    Some(Pace(Arc::new(Mutex::new(bucket))))
}

impl Pace {
    /// How long a request is to wait: its turn is taken.
    pub(super) fn wait(&self, method: &Method, path: &str) -> Duration {
        if is_free(method, path) {
            return Duration::ZERO;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).reserve()
    }
}

/// Events have a limit of their own, and heartbeats, which say that a node lives, have none.
fn is_free(method: &Method, path: &str) -> bool {
    let mut parts = path.trim_start_matches('/').split('/');
    match (parts.next(), parts.next()) {
        (Some("apis"), Some("coordination.k8s.io")) => true,
        (Some("api"), Some("v1")) => match parts.next() {
            Some("nodes") => true,
            Some("namespaces") => method != Method::GET && parts.nth(1) == Some("events"),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_are_paced_where_that_is_asked_for() {
        assert!(limit(&KubeletConfiguration::default()).is_none());
        let kubelet =
            KubeletConfiguration { kube_api_qps: Some(10), kube_api_burst: Some(2), ..KubeletConfiguration::default() };
        let pace = limit(&kubelet).unwrap();
        let other = pace.clone();
        let ask = |pace: &Pace| pace.wait(&Method::GET, "/api/v1/namespaces/n/pods/p");
        assert_eq!((ask(&pace), ask(&other)), (Duration::ZERO, Duration::ZERO));
        assert_eq!((ask(&pace), ask(&other)), (Duration::from_millis(100), Duration::from_millis(200)));
        for (method, path) in [
            (Method::POST, "/api/v1/namespaces/n/events"),
            (Method::PATCH, "/api/v1/nodes/n/status"),
            (Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n"),
        ] {
            assert_eq!(pace.wait(&method, path), Duration::ZERO, "{path}");
        }
        let only_burst = KubeletConfiguration { kube_api_burst: Some(1), ..KubeletConfiguration::default() };
        let pace = limit(&only_burst).unwrap();
        assert_eq!((ask(&pace), ask(&pace)), (Duration::ZERO, Duration::from_millis(20)));
    }
}
