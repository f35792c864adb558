//! The families, with upstream's names, labels, bounds and texts (pkg/kubelet/metrics, pkg/kubelet/server/metrics, pkg/kubelet/prober,
//! component-base/metrics/prometheus/restclient).

use super::{Counter, Gauge, Histogram};
use crate::exposition::{Text, float};

/// Prometheus' own.
const DEFAULT: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const POD_START: &[f64] = &[
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0,
    600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
/// From 5 ms, each two and a half times the one before.
const RUNTIME: &[f64] = &[
    0.005,
    0.0125,
    0.03125,
    0.078125,
    0.1953125,
    0.48828125,
    1.220703125,
    3.0517578125,
    7.62939453125,
    19.073486328125,
    47.6837158203125,
    119.20928955078125,
    298.0232238769531,
    745.0580596923828,
];
/// In milliseconds.
const RESIZE: &[f64] = &[
    10.0, 50.0, 100.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0, 30_000.0, 60_000.0, 120_000.0, 300_000.0,
    600_000.0,
];
const PULLS: &[f64] = &[
    1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0,
    3600.0,
];
const STATUS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];
const STORAGE: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0];
const CONTAINERS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0];
const REST: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

pub static POD_WORKER: Histogram<1> = Histogram::new(
    "kubelet_pod_worker_duration_seconds",
    "[ALPHA] Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync",
    DEFAULT,
    ["operation_type"],
);
pub static POD_START_DURATION: Histogram<0> = Histogram::new(
    "kubelet_pod_start_duration_seconds",
    "[ALPHA] Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
    POD_START,
    [],
);
pub static POD_START_SLI: Histogram<0> = Histogram::new(
    "kubelet_pod_start_sli_duration_seconds",
    "[ALPHA] Duration in seconds to start a pod, excluding time to pull images and run init containers, measured from pod creation \
     timestamp to when all its containers are reported as started and observed via watch",
    POD_START,
    [],
);
pub static POD_START_TOTAL: Histogram<0> = Histogram::new(
    "kubelet_pod_start_total_duration_seconds",
    "[ALPHA] Duration in seconds to start a pod since creation, including time to pull images and run init containers, measured from \
     pod creation timestamp to when all its containers are reported as started and observed via watch",
    POD_START,
    [],
);
pub static CGROUPS: Histogram<1> = Histogram::new(
    "kubelet_cgroup_manager_duration_seconds",
    "[ALPHA] Duration in seconds for cgroup manager operations. Broken down by method.",
    DEFAULT,
    ["operation_type"],
);
pub static PLEG_RELIST: Histogram<0> = Histogram::new(
    "kubelet_pleg_relist_duration_seconds",
    "[ALPHA] Duration in seconds for relisting pods in PLEG.",
    DEFAULT,
    [],
);
pub static PLEG_INTERVAL: Histogram<0> = Histogram::new(
    "kubelet_pleg_relist_interval_seconds",
    "[ALPHA] Interval in seconds between relisting in PLEG.",
    DEFAULT,
    [],
);
pub static PLEG_LAST_SEEN: Gauge =
    Gauge::new("kubelet_pleg_last_seen_seconds", "[ALPHA] Timestamp in seconds when PLEG was last seen active.");
pub static CLIENT_CERTIFICATE: Gauge = Gauge::new(
    "kubelet_certificate_manager_client_ttl_seconds",
    "[ALPHA] Gauge of the TTL (time-to-live) of the Kubelet's client certificate. The value is in seconds until certificate expiry \
     (negative if already expired). If client certificate is invalid or unused, the value will be +INF.",
);
pub static SERVING_CERTIFICATE: Gauge = Gauge::new(
    "kubelet_certificate_manager_server_ttl_seconds",
    "[ALPHA] Gauge of the shortest TTL (time-to-live) of the Kubelet's serving certificate. The value is in seconds until certificate \
     expiry (negative if already expired). If serving certificate is invalid or unused, the value will be +INF.",
);
pub static MEMORY_QOS_MIN: Gauge = Gauge::new(
    "kubelet_memory_qos_node_memory_min_bytes",
    "[ALPHA] Total cgroup v2 memory.min in bytes for Guaranteed pods. This memory is hard-reserved and never reclaimed by the kernel.",
);
pub static MEMORY_QOS_LOW: Gauge = Gauge::new(
    "kubelet_memory_qos_node_memory_low_bytes",
    "[ALPHA] Total cgroup v2 memory.low in bytes for Burstable pods. This memory is soft-reserved and may be reclaimed under extreme \
     pressure.",
);
pub static ORPHANED_PODS: Counter<0> = Counter::new(
    "kubelet_orphaned_runtime_pods_total",
    "[ALPHA] Number of pods that have been detected in the container runtime without being already known to the pod worker. This \
     typically indicates the kubelet was restarted while a pod was force deleted in the API or in the local configuration, which is \
     unusual.",
    [],
);
pub static RUNTIME_OPERATIONS: Counter<1> = Counter::new(
    "kubelet_runtime_operations_total",
    "[ALPHA] Cumulative number of runtime operations by operation type.",
    ["operation_type"],
);
pub static RUNTIME_DURATION: Histogram<1> = Histogram::new(
    "kubelet_runtime_operations_duration_seconds",
    "[ALPHA] Duration in seconds of runtime operations. Broken down by operation type.",
    RUNTIME,
    ["operation_type"],
);
pub static RUNTIME_ERRORS: Counter<1> = Counter::new(
    "kubelet_runtime_operations_errors_total",
    "[ALPHA] Cumulative number of runtime operation errors by operation type.",
    ["operation_type"],
);
pub static SANDBOXES: Histogram<1> = Histogram::new(
    "kubelet_run_podsandbox_duration_seconds",
    "[ALPHA] Duration in seconds of the run_podsandbox operations. Broken down by RuntimeClass.Handler.",
    DEFAULT,
    ["runtime_handler"],
);
pub static SANDBOX_ERRORS: Counter<1> = Counter::new(
    "kubelet_run_podsandbox_errors_total",
    "[ALPHA] Cumulative number of the run_podsandbox operation errors by RuntimeClass.Handler.",
    ["runtime_handler"],
);
pub static STARTED_PODS: Counter<0> =
    Counter::new("kubelet_started_pods_total", "[ALPHA] Cumulative number of pods started", []);
pub static STARTED_PODS_ERRORS: Counter<0> =
    Counter::new("kubelet_started_pods_errors_total", "[ALPHA] Cumulative number of errors when starting pods", []);
pub static STARTED_USERNS: Counter<0> = Counter::new(
    "kubelet_started_user_namespaced_pods_total",
    "[ALPHA] Cumulative number of pods with user namespaces started. This metric will only be collected on Linux.",
    [],
);
pub static STARTED_USERNS_ERRORS: Counter<0> = Counter::new(
    "kubelet_started_user_namespaced_pods_errors_total",
    "[ALPHA] Cumulative number of errors when starting pods with user namespaces. This metric will only be collected on Linux.",
    [],
);
pub static STARTED_CONTAINERS: Counter<1> = Counter::new(
    "kubelet_started_containers_total",
    "[ALPHA] Cumulative number of containers started",
    ["container_type"],
);
pub static TERMINATED_CONTAINERS: Counter<3> = Counter::new(
    "kubelet_terminated_containers_total",
    "[ALPHA] Cumulative number of container terminations.",
    ["container_type", "exit_code", "reason"],
);
pub static STARTED_CONTAINERS_ERRORS: Counter<2> = Counter::new(
    "kubelet_started_containers_errors_total",
    "[ALPHA] Cumulative number of errors when starting containers",
    ["container_type", "code"],
);
pub static REQUESTED_RESIZES: Counter<3> = Counter::new(
    "kubelet_container_requested_resizes_total",
    "[ALPHA] Number of requested resizes, counted at the container level. Different resources on the same container are counted \
     separately. The 'requirement' label refers to 'memory' or 'limits'; the 'operation' label can be one of 'add', 'remove', \
     'increase' or 'decrease'.",
    ["resource", "requirement", "operation"],
);
pub static RESIZE_MILLISECONDS: Histogram<1> = Histogram::new(
    "kubelet_pod_resize_duration_milliseconds",
    "[ALPHA] Duration in milliseconds to actuate a pod resize",
    RESIZE,
    ["success"],
);
pub static INFEASIBLE_RESIZES: Counter<1> = Counter::new(
    "kubelet_pod_infeasible_resizes_total",
    "[ALPHA] Number of infeasible resizes for pods.",
    ["reason_detail"],
);
pub static DEFERRED_ACCEPTED_RESIZES: Counter<1> = Counter::new(
    "kubelet_pod_deferred_accepted_resizes_total",
    "[ALPHA] Cumulative number of resizes that were accepted after being deferred.",
    ["retry_trigger"],
);
pub static PREEMPTIONS: Counter<1> = Counter::new(
    "kubelet_preemptions",
    "[ALPHA] Cumulative number of pod preemptions by preemption resource",
    ["preemption_signal"],
);
pub static IMAGES_COLLECTED: Counter<1> = Counter::new(
    "kubelet_image_garbage_collected_total",
    "[ALPHA] Total number of images garbage collected by the kubelet, whether through disk usage or image age.",
    ["reason"],
);
pub static IMAGE_PULLS: Histogram<1> = Histogram::new(
    "kubelet_image_pull_duration_seconds",
    "[ALPHA] Duration in seconds to pull an image.",
    PULLS,
    ["image_size_in_bytes"],
);
pub static IMAGE_VOLUMES: Counter<0> =
    Counter::new("kubelet_image_volume_requested_total", "[BETA] Number of requested image volumes.", []);
pub static IMAGE_VOLUMES_MOUNTED: Counter<0> =
    Counter::new("kubelet_image_volume_mounted_succeed_total", "[BETA] Number of successful image volume mounts.", []);
pub static IMAGE_VOLUME_ERRORS: Counter<0> =
    Counter::new("kubelet_image_volume_mounted_errors_total", "[BETA] Number of failed image volume mounts.", []);
pub static HTTP_FALLBACKS: Counter<0> = Counter::new(
    "kubelet_lifecycle_handler_http_fallbacks_total",
    "[ALPHA] The number of times lifecycle handlers successfully fell back to http from https.",
    [],
);
pub static SLEEPS_ENDED_EARLY: Counter<0> = Counter::new(
    "kubelet_sleep_action_terminated_early_total",
    "[ALPHA] The number of times lifecycle sleep handler got terminated before it finishes",
    [],
);
pub static CONTAINERS_PER_POD: Histogram<0> =
    Histogram::new("kubelet_containers_per_pod_count", "[ALPHA] The number of containers per pod.", CONTAINERS, []);
pub static STATUS_SYNC: Histogram<0> = Histogram::new(
    "kubelet_pod_status_sync_duration_seconds",
    "[ALPHA] Duration in seconds to sync a pod status update. Measures time from detection of a change to pod status until the API is \
     successfully updated for that pod, even if multiple intevening changes to pod status occur.",
    STATUS,
    [],
);
pub static STORAGE_OPERATIONS: Histogram<4> = Histogram::new(
    "storage_operation_duration_seconds",
    "[ALPHA] Storage operation duration",
    STORAGE,
    ["volume_plugin", "operation_name", "status", "migrated"],
);
pub static CLIENT_RENEWAL_ERRORS: Counter<0> = Counter::new(
    "kubelet_certificate_manager_client_expiration_renew_errors",
    "[ALPHA] Counter of certificate renewal errors.",
    [],
);
pub static SERVER_RENEWAL_ERRORS: Counter<0> =
    Counter::new("kubelet_server_expiration_renew_errors", "[ALPHA] Counter of certificate renewal errors.", []);
pub static EVICTIONS: Counter<1> = Counter::new(
    "kubelet_evictions",
    "[ALPHA] Cumulative number of pod evictions by eviction signal",
    ["eviction_signal"],
);
pub static ADMISSION_REJECTIONS: Counter<1> = Counter::new(
    "kubelet_admission_rejections_total",
    "[ALPHA] Cumulative number pod admission rejections by the Kubelet.",
    ["reason"],
);
pub static HTTP_REQUESTS: Counter<4> = Counter::new(
    "kubelet_http_requests_total",
    "[ALPHA] Number of the http requests received since the server started",
    ["method", "path", "server_type", "long_running"],
);
pub static HTTP_DURATION: Histogram<4> = Histogram::new(
    "kubelet_http_requests_duration_seconds",
    "[ALPHA] Duration in seconds to serve http requests",
    DEFAULT,
    ["method", "path", "server_type", "long_running"],
);
pub static REST_REQUESTS: Counter<3> = Counter::new(
    "rest_client_requests_total",
    "[BETA] Number of HTTP requests, partitioned by status code, method, and host.",
    ["code", "method", "host"],
);
pub static REST_DURATION: Histogram<2> = Histogram::new(
    "rest_client_request_duration_seconds",
    "[BETA] Request latency in seconds. Broken down by verb, and host.",
    REST,
    ["verb", "host"],
);
pub static PROBES: Counter<6> = Counter::new(
    "prober_probe_total",
    "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.",
    ["probe_type", "result", "container", "pod", "namespace", "pod_uid"],
);
pub static PROBE_DURATION: Histogram<4> = Histogram::new(
    "prober_probe_duration_seconds",
    "[ALPHA] Duration in seconds for a probe response.",
    DEFAULT,
    ["probe_type", "container", "pod", "namespace"],
);

/// What was counted for `/metrics`.
#[must_use]
pub fn text() -> String {
    let mut text = Text::default();
    PLEG_LAST_SEEN.write(&mut text, |at| at);
    let now = float(jiff::Timestamp::now().as_second().unsigned_abs());
    for certificate in [&CLIENT_CERTIFICATE, &SERVING_CERTIFICATE] {
        certificate.write(&mut text, |end| end - now);
    }
    // Only with the feature gate.
    for memory in [&MEMORY_QOS_MIN, &MEMORY_QOS_LOW] {
        memory.write_if_seen(&mut text);
    }
    histograms(&mut text);
    counters(&mut text);
    requests(&mut text);
    text.into_string()
}

fn histograms(text: &mut Text) {
    for histogram in [&POD_START_DURATION, &POD_START_SLI, &POD_START_TOTAL, &PLEG_RELIST, &PLEG_INTERVAL] {
        histogram.write(text);
    }
    for histogram in [&CONTAINERS_PER_POD, &STATUS_SYNC] {
        histogram.write(text);
    }
    for histogram in [&POD_WORKER, &CGROUPS, &RUNTIME_DURATION, &SANDBOXES, &RESIZE_MILLISECONDS, &IMAGE_PULLS] {
        histogram.write(text);
    }
    HTTP_DURATION.write(text);
    STORAGE_OPERATIONS.write(text);
}

fn counters(text: &mut Text) {
    for counter in [&STARTED_PODS, &STARTED_PODS_ERRORS, &STARTED_USERNS, &STARTED_USERNS_ERRORS] {
        counter.write(text);
    }
    for counter in [&IMAGE_VOLUMES, &IMAGE_VOLUMES_MOUNTED, &IMAGE_VOLUME_ERRORS] {
        counter.write(text);
    }
    for counter in
        [&HTTP_FALLBACKS, &SLEEPS_ENDED_EARLY, &CLIENT_RENEWAL_ERRORS, &SERVER_RENEWAL_ERRORS, &ORPHANED_PODS]
    {
        counter.write(text);
    }
    for counter in [&RUNTIME_OPERATIONS, &RUNTIME_ERRORS, &SANDBOX_ERRORS, &STARTED_CONTAINERS] {
        counter.write(text);
    }
    for counter in [&EVICTIONS, &PREEMPTIONS, &ADMISSION_REJECTIONS, &IMAGES_COLLECTED] {
        counter.write(text);
    }
    for counter in [&INFEASIBLE_RESIZES, &DEFERRED_ACCEPTED_RESIZES] {
        counter.write(text);
    }
    STARTED_CONTAINERS_ERRORS.write(text);
    TERMINATED_CONTAINERS.write(text);
    REQUESTED_RESIZES.write(text);
    HTTP_REQUESTS.write(text);
}

/// What the API server was asked.
pub fn requests(text: &mut Text) {
    REST_DURATION.write(text);
    REST_REQUESTS.write(text);
}

/// `/metrics/probes`.
#[must_use]
pub fn probes() -> String {
    let mut text = Text::default();
    PROBES.write(&mut text);
    PROBE_DURATION.write(&mut text);
    text.into_string()
}

/// A pod is no more, and so are its probes.
pub fn forget_probes(uid: &str, name: &str, namespace: &str) {
    PROBES.forget(|[.., known]| known == uid);
    PROBE_DURATION.forget(|[_, _, pod, known]| pod == name && known == namespace);
}
