//! What the service proxy counts, under kube-proxy's names (pkg/proxy/metrics). One table is of both families, so that each transaction counts for
//! either.

use std::time::Duration;

use jiff::Timestamp;

use super::{Counter, Gauge, Histogram};
use crate::exposition::{Text, float};

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
/// From 1 ms, each twice the one before.
const SYNC: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
const PROGRAMMING: &[f64] = &[
    0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0,
    20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 26.0, 27.0, 28.0, 29.0, 30.0, 31.0, 32.0, 33.0, 34.0, 35.0, 36.0, 37.0, 38.0,
    39.0, 40.0, 41.0, 42.0, 43.0, 44.0, 45.0, 46.0, 47.0, 48.0, 49.0, 50.0, 51.0, 52.0, 53.0, 54.0, 55.0, 56.0, 57.0,
    58.0, 59.0, 60.0, 65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0, 100.0, 105.0, 110.0, 115.0, 120.0, 150.0, 180.0, 210.0,
    240.0, 270.0, 300.0,
];

static DURATION: Histogram<1> = Histogram::new(
    "kubeproxy_sync_proxy_rules_duration_seconds",
    "[ALPHA] SyncProxyRules latency in seconds",
    SYNC,
    ["ip_family"],
);
static FULL: Histogram<1> = Histogram::new(
    "kubeproxy_sync_full_proxy_rules_duration_seconds",
    "[ALPHA] SyncProxyRules latency in seconds for full resyncs",
    SYNC,
    ["ip_family"],
);
static PARTIAL: Histogram<1> = Histogram::new(
    "kubeproxy_sync_partial_proxy_rules_duration_seconds",
    "[ALPHA] SyncProxyRules latency in seconds for partial resyncs",
    SYNC,
    ["ip_family"],
);
static NETWORK_PROGRAMMING: Histogram<1> = Histogram::new(
    "kubeproxy_network_programming_duration_seconds",
    "[ALPHA] In Cluster Network Programming Latency in seconds",
    PROGRAMMING,
    ["ip_family"],
);
static SYNCED: Gauge = Gauge::new(
    "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
    "[ALPHA] The last time proxy rules were successfully synced",
);
static QUEUED: Gauge = Gauge::new(
    "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
    "[ALPHA] The last time a sync of proxy rules was queued",
);
static FAILURES: Counter<1> = Counter::new(
    "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
    "[ALPHA] Cumulative proxy nftables sync failures",
    ["ip_family"],
);
static SERVICES: Counter<0> = Counter::new(
    "kubeproxy_sync_proxy_rules_service_changes_total",
    "[ALPHA] Cumulative proxy rules Service changes",
    [],
);
static ENDPOINTS: Counter<0> = Counter::new(
    "kubeproxy_sync_proxy_rules_endpoint_changes_total",
    "[ALPHA] Cumulative proxy rules Endpoint changes",
    [],
);
static SERVICES_PENDING: Gauge =
    Gauge::new("kubeproxy_sync_proxy_rules_service_changes_pending", "[ALPHA] Pending proxy rules Service changes");
static ENDPOINTS_PENDING: Gauge =
    Gauge::new("kubeproxy_sync_proxy_rules_endpoint_changes_pending", "[ALPHA] Pending proxy rules Endpoint changes");
/// Answers at the port of load balancers.
pub static HEALTHZ: Counter<1> =
    Counter::new("kubeproxy_proxy_healthz_total", "[ALPHA] Cumulative proxy healthz HTTP status", ["code"]);
/// The same of `/livez`.
pub static LIVEZ: Counter<1> =
    Counter::new("kubeproxy_proxy_livez_total", "[ALPHA] Cumulative proxy livez HTTP status", ["code"]);

/// Changes that the kernel does not have yet.
#[derive(Debug)]
pub struct Pending {
    /// What was caused before is not measured: nobody was there to apply it.
    begun: Timestamp,
    services: u64,
    endpoints: u64,
    /// When what brought them about happened, as their annotations say.
    triggers: Vec<Timestamp>,
}

impl Pending {
    /// Nothing, from now on.
    #[must_use]
    pub fn new() -> Self {
        Self { begun: Timestamp::now(), services: 0, endpoints: 0, triggers: Vec::new() }
    }

    /// A Service changed.
    pub fn service(&mut self) {
        self.services = self.services.saturating_add(1);
        SERVICES.count([]);
        self.queued();
    }

    /// An EndpointSlice changed, with its `endpoints.kubernetes.io/last-change-trigger-time`.
    pub fn endpoints(&mut self, trigger: Option<Timestamp>) {
        self.endpoints = self.endpoints.saturating_add(1);
        self.triggers.extend(trigger.filter(|at| *at > self.begun));
        ENDPOINTS.count([]);
        self.queued();
    }

    fn queued(&self) {
        QUEUED.set(seconds(Timestamp::now()));
        self.tell();
    }

    fn tell(&self) {
        SERVICES_PENDING.set(float(self.services));
        ENDPOINTS_PENDING.set(float(self.endpoints));
    }

    /// They were given to the kernel, which took this long. `is_full`: the whole table was; `None`: it refused.
    pub fn synced(&mut self, is_full: Option<bool>, took: Duration) {
        let each = |count: &dyn Fn(&'static str)| FAMILIES.into_iter().for_each(count);
        each(&|family| DURATION.observe([family.into()], took));
        let Some(is_full) = is_full else {
            return each(&|family| FAILURES.count([family.into()]));
        };
        let histogram = if is_full { &FULL } else { &PARTIAL };
        each(&|family| histogram.observe([family.into()], took));
        let now = Timestamp::now();
        for trigger in std::mem::take(&mut self.triggers) {
            let latency = seconds(now) - seconds(trigger);
            each(&|family| NETWORK_PROGRAMMING.record([family.into()], latency.max(0.0)));
        }
        SYNCED.set(seconds(now));
        (self.services, self.endpoints) = (0, 0);
        self.tell();
    }
}

impl Default for Pending {
    fn default() -> Self {
        Self::new()
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

/// What was counted.
pub fn write(text: &mut Text) {
    for histogram in [&DURATION, &FULL, &PARTIAL, &NETWORK_PROGRAMMING] {
        histogram.write(text);
    }
    for gauge in [&SYNCED, &QUEUED] {
        gauge.write_for(text, "ip_family", &FAMILIES);
    }
    for gauge in [&SERVICES_PENDING, &ENDPOINTS_PENDING] {
        gauge.write_if_seen(text);
    }
    for counter in [&SERVICES, &ENDPOINTS] {
        counter.write(text);
    }
    for counter in [&FAILURES, &HEALTHZ, &LIVEZ] {
        counter.write(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All in one: counts are of the process.
    #[test]
    fn a_transaction_is_counted_for_both_families() {
        let mut pending = Pending::new();
        let now = Timestamp::now();
        pending.service();
        pending.endpoints(Some(now + jiff::SignedDuration::from_millis(1)));
        pending.endpoints(Some(now - jiff::SignedDuration::from_hours(1)));
        let has = |line: &str| {
            let mut text = Text::default();
            write(&mut text);
            let text = text.into_string();
            assert!(text.lines().any(|is| is.starts_with(line)), "no {line} in {text}");
        };
        has("kubeproxy_sync_proxy_rules_endpoint_changes_pending 2");
        pending.synced(None, Duration::from_millis(3));
        has("kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv6\"} 1");
        has("kubeproxy_sync_proxy_rules_service_changes_pending 1");
        pending.synced(Some(true), Duration::from_millis(3));
        has("kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.004\"} 2");
        has("kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1");
        has("kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"} 1");
        has("kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} ");
        has("kubeproxy_sync_proxy_rules_endpoint_changes_pending 0");
        has("kubeproxy_sync_proxy_rules_endpoint_changes_total 2");
    }
}
