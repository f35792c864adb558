//! The part of `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1) that Keelson obeys, with upstream's defaults
//! (pkg/kubelet/apis/config/v1beta1/defaults.go).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::duration::GoDuration;
use super::gates;
use crate::pods::userns;

/// `KubeletConfiguration`, the obeyed fields. Absent fields hold upstream's default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeletConfiguration {
    /// Always `kubelet.config.k8s.io/v1beta1`.
    pub api_version: String,
    /// Always `KubeletConfiguration`.
    pub kind: String,
    /// Folder (or file) of the manifests of static pods; empty for none.
    pub static_pod_path: String,
    /// URL of manifests of static pods; empty for none.
    #[serde(rename = "staticPodURL")]
    pub static_pod_url: String,
    /// Headers that this URL is asked with.
    #[serde(rename = "staticPodURLHeader")]
    pub static_pod_url_header: BTreeMap<String, Vec<String>>,
    /// How often the folder is read although nothing seems to have changed.
    pub file_check_frequency: GoDuration,
    /// How often the URL is asked.
    pub http_check_frequency: GoDuration,
    /// Root folder of container logs.
    pub pod_logs_dir: String,
    /// Address the HTTPS server binds to.
    pub address: String,
    /// Port of the HTTPS server.
    pub port: u16,
    /// Port of the server that asks nobody who they are; 0 for none.
    pub read_only_port: u16,
    /// Whether `/logs/` is served.
    pub enable_system_log_handler: bool,
    /// Whether logs of services can be asked for there.
    pub enable_system_log_query: bool,
    /// Whether that server runs at all.
    pub enable_server: bool,
    /// Whether exec, attach, logs and port-forward are served.
    pub enable_debugging_handlers: bool,
    /// A serving certificate of the administrator's; empty to ask the cluster for one.
    pub tls_cert_file: String,
    /// Its key.
    pub tls_private_key_file: String,
    /// Suites of TLS 1.2 by their IANA names; all that there are where empty.
    pub tls_cipher_suites: Vec<String>,
    /// Key exchanges by their numbers in TLS; all that there are where empty.
    pub tls_curve_preferences: Vec<i32>,
    /// `VersionTLS12` (also when empty) or `VersionTLS13`; older ones are never spoken.
    pub tls_min_version: String,
    /// How long nothing may be said in a session (exec, attach, port-forward) before it ends.
    pub streaming_connection_idle_timeout: GoDuration,
    /// Whether the client certificate is renewed by CSR.
    pub rotate_certificates: bool,
    /// Who may talk to the HTTPS server.
    pub authentication: Authentication,
    /// What they may do there.
    pub authorization: Authorization,
    /// Events a second; 0 for no limit.
    #[serde(rename = "eventRecordQPS")]
    pub event_record_qps: i32,
    /// Burst of events.
    pub event_burst: i32,
    /// Port of the plain healthz endpoint; 0 for none.
    pub healthz_port: u16,
    /// Its address.
    pub healthz_bind_address: String,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Name servers of pods with `dnsPolicy: ClusterFirst`.
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    /// How often the node's state is computed.
    pub node_status_update_frequency: GoDuration,
    /// How often it is sent although nothing changed.
    pub node_status_report_frequency: GoDuration,
    /// Duration of the node's lease.
    pub node_lease_duration_seconds: i32,
    /// Whether the Node is made where there is none.
    pub register_node: bool,
    /// How long a shutdown of the machine waits for pods; zero for not at all.
    pub shutdown_grace_period: GoDuration,
    /// How much of that time, at its end, is for critical pods.
    pub shutdown_grace_period_critical_pods: GoDuration,
    /// The same for pods from each of these priorities on.
    pub shutdown_grace_period_by_pod_priority: Vec<ShutdownGracePeriodByPodPriority>,
    /// cgroup under which everything of pods lies; empty for the root.
    pub cgroup_root: String,
    /// `cgroupfs` or `systemd`; the runtime's word wins where it has one.
    pub cgroup_driver: String,
    /// Pods this node takes.
    pub max_pods: i32,
    /// Pods a core; 0 for no such limit.
    pub pods_per_core: i32,
    /// Processes a pod; -1 for no limit.
    pub pod_pids_limit: i64,
    /// The resolv.conf that pods' resolv.conf starts from; empty for none.
    pub resolv_conf: String,
    /// Whether CPU limits become CFS quotas.
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: bool,
    /// The period of those quotas.
    #[serde(rename = "cpuCFSQuotaPeriod")]
    pub cpu_cfs_quota_period: GoDuration,
    /// Images listed in the node's status; -1 for all.
    pub node_status_max_images: i32,
    /// Whether images are pulled one at a time; by default unless `maxParallelImagePulls` is above one.
    pub serialize_image_pulls: Option<bool>,
    /// Pulls at the same time, where not serialized.
    pub max_parallel_image_pulls: Option<i32>,
    /// Pulls a second; 0 for no limit.
    #[serde(rename = "registryPullQPS")]
    pub registry_pull_qps: i32,
    /// Burst of pulls.
    pub registry_burst: i32,
    /// Who may use an image that is there: `NeverVerify`, `NeverVerifyPreloadedImages`, `NeverVerifyAllowlistedImages`
    /// or `AlwaysVerify`.
    pub image_pull_credentials_verification_policy: String,
    /// Images for everybody under `NeverVerifyAllowlistedImages`.
    pub preloaded_images_verification_allowlist: Vec<String>,
    /// Age from which an unused image may be removed.
    #[serde(rename = "imageMinimumGCAge")]
    pub image_minimum_gc_age: GoDuration,
    /// Time after which an unused image is removed in any case; 0 for never.
    #[serde(rename = "imageMaximumGCAge")]
    pub image_maximum_gc_age: GoDuration,
    /// Use of the image filesystem from which images are removed, in percent.
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: i32,
    /// Use of the image filesystem until which images are removed, in percent.
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: i32,
    /// Signals below (or above) which pods are evicted.
    pub eviction_hard: BTreeMap<String, String>,
    /// The same, where it must last for a while first.
    pub eviction_soft: BTreeMap<String, String>,
    /// That while.
    pub eviction_soft_grace_period: BTreeMap<String, String>,
    /// How long the node is said to be under pressure after it was last.
    pub eviction_pressure_transition_period: GoDuration,
    /// Seconds that pods get at most when a soft threshold evicts them.
    pub eviction_max_pod_grace_period: i32,
    /// How much more than the threshold is reclaimed.
    pub eviction_minimum_reclaim: BTreeMap<String, String>,
    /// Whether `evictionHard` is merged with the default.
    pub merge_default_eviction_settings: bool,
    /// Whether limits of local ephemeral storage are kept.
    pub local_storage_capacity_isolation: bool,
    /// Feature gates; of most of them nothing depends here.
    pub feature_gates: BTreeMap<String, bool>,
    /// How much of a container's memory, from what it asks for to its limit, it has before it is slowed down (gate `MemoryQoS`).
    pub memory_throttling_factor: f64,
    /// Whether the memory that is asked for is protected: `None` (also when empty) or `TieredReservation` (gate `MemoryQoS`).
    pub memory_reservation_policy: String,
    /// How much of what pods ask for is kept from those of lower classes (gate `QOSReserved`); percentages of `memory`.
    pub qos_reserved: BTreeMap<String, String>,
    /// Whether flags of the kernel that are not as pods need them stop the start; otherwise they are set.
    pub protect_kernel_defaults: bool,
    /// Whether swap stops the start.
    pub fail_swap_on: bool,
    /// Whether only one process of a container is killed that runs out of memory; not by default.
    #[serde(rename = "singleProcessOOMKill", skip_serializing_if = "Option::is_none")]
    pub single_process_oom_kill: Option<bool>,
    /// How pods use swap.
    pub memory_swap: MemorySwap,
    /// Size at which a container log is rotated.
    pub container_log_max_size: String,
    /// Files kept of one container log.
    pub container_log_max_files: i32,
    /// How often it is looked whether one is to be rotated.
    pub container_log_monitor_interval: GoDuration,
    /// Logs that are rotated at the same time.
    pub container_log_max_workers: i32,
    /// Resources kept from pods for the system.
    pub system_reserved: BTreeMap<String, String>,
    /// Resources kept from pods for Kubernetes.
    pub kube_reserved: BTreeMap<String, String>,
    /// CPUs for both, a list such as `0-1,3`; their number stands for the CPU that the two name.
    #[serde(rename = "reservedSystemCPUs")]
    pub reserved_system_cpus: String,
    /// The cgroup of the system, as the driver spells it.
    pub system_reserved_cgroup: String,
    /// The cgroup of Kubernetes' own parts.
    pub kube_reserved_cgroup: String,
    /// Which of `pods`, `system-reserved`, `kube-reserved` are enforced by cgroups, and of the latter two whether but CPU is (`…-compressible`).
    pub enforce_node_allocatable: Vec<String>,
    /// Unsafe sysctls that pods may ask for.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// The node's `spec.providerID`.
    #[serde(rename = "providerID")]
    pub provider_id: String,
    /// Limits of the restart back-off.
    pub crash_loop_back_off: CrashLoopBackOff,
    /// Whether `RuntimeDefault` is the seccomp profile of pods that name none.
    pub seccomp_default: bool,
    /// How long the count of what a volume holds is good; negative durations do not parse, zero is the default.
    pub volume_stats_agg_period: GoDuration,
    /// User namespaces of pods.
    pub user_namespaces: UserNamespaces,
    /// Taints the node registers with.
    pub register_with_taints: Vec<Taint>,
    /// The runtime's socket.
    pub container_runtime_endpoint: String,
    /// The socket of another program that has the images; empty where it is the runtime's.
    pub image_service_endpoint: String,
    /// Time that the runtime has for an answer, but for pulls and what lasts as long as it was told to.
    pub runtime_request_timeout: GoDuration,
    /// Requests a second to the API server; 0 for upstream's default. Limited only where one of the two is set.
    #[serde(rename = "kubeAPIQPS", skip_serializing_if = "Option::is_none")]
    pub kube_api_qps: Option<i32>,
    /// Burst of requests to the API server.
    #[serde(rename = "kubeAPIBurst", skip_serializing_if = "Option::is_none")]
    pub kube_api_burst: Option<i32>,
    /// What the kernel's choice of victims makes of the agent when memory runs out.
    pub oom_score_adj: i32,
    /// Files that the agent may have open.
    pub max_open_files: i64,
    /// Whether cgroup v1 stops the start.
    #[serde(rename = "failCgroupV1")]
    pub fail_cgroup_v1: bool,
    /// Fields that nothing here acts on, as they were read: they are judged, and written again.
    #[serde(flatten)]
    pub unheeded: BTreeMap<String, Value>,
}

/// `KubeletAuthentication`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Authentication {
    /// Client certificates.
    pub x509: X509Authentication,
    /// Bearer tokens.
    pub webhook: WebhookAuthentication,
    /// Requests without credentials.
    pub anonymous: AnonymousAuthentication,
}

/// `KubeletX509Authentication`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct X509Authentication {
    /// CA bundle of client certificates; empty for the cluster's own.
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: String,
}

/// `KubeletWebhookAuthentication`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WebhookAuthentication {
    /// Whether tokens are asked about with `TokenReview`.
    pub enabled: bool,
    /// How long an answer holds.
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: GoDuration,
}

impl Default for WebhookAuthentication {
    fn default() -> Self {
        Self { enabled: true, cache_ttl: GoDuration::secs(120) }
    }
}

/// `KubeletAnonymousAuthentication`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct AnonymousAuthentication {
    /// Whether they are served as `system:anonymous`.
    pub enabled: bool,
}

/// `KubeletAuthorization`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Authorization {
    /// `Webhook` or `AlwaysAllow`.
    pub mode: String,
    /// How long answers of `SubjectAccessReview` hold.
    pub webhook: WebhookAuthorization,
}

impl Default for Authorization {
    fn default() -> Self {
        Self { mode: "Webhook".into(), webhook: WebhookAuthorization::default() }
    }
}

/// `KubeletWebhookAuthorization`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WebhookAuthorization {
    /// For a yes.
    #[serde(rename = "cacheAuthorizedTTL")]
    pub cache_authorized_ttl: GoDuration,
    /// For a no.
    #[serde(rename = "cacheUnauthorizedTTL")]
    pub cache_unauthorized_ttl: GoDuration,
}

impl Default for WebhookAuthorization {
    fn default() -> Self {
        Self { cache_authorized_ttl: GoDuration::secs(300), cache_unauthorized_ttl: GoDuration::secs(30) }
    }
}

/// `MemorySwapConfiguration`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct MemorySwap {
    /// `NoSwap` (also when empty) or `LimitedSwap`.
    pub swap_behavior: String,
}

/// `ShutdownGracePeriodByPodPriority`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ShutdownGracePeriodByPodPriority {
    /// The least priority of these pods.
    pub priority: i32,
    /// Their time.
    pub shutdown_grace_period_seconds: i64,
}

/// `UserNamespaces`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct UserNamespaces {
    /// How many ids a pod has, a multiple of 65536; that many where unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids_per_pod: Option<i64>,
}

impl UserNamespaces {
    /// How many ids a pod has.
    #[must_use]
    pub fn ids_per_pod(&self) -> u32 {
        self.ids_per_pod.and_then(|ids| u32::try_from(ids).ok()).filter(|ids| *ids > 0).unwrap_or(userns::UNIT)
    }
}

/// `CrashLoopBackOffConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct CrashLoopBackOff {
    /// The longest pause between restarts; upstream's default is five minutes.
    pub max_container_restart_period: Option<GoDuration>,
}

/// The feature gate of `memoryThrottlingFactor` and `memoryReservationPolicy` (KEP-2570).
pub const MEMORY_QOS: &str = "MemoryQoS";
/// The feature gate of `qosReserved`.
pub const QOS_RESERVED: &str = "QOSReserved";
/// The policy that protects memory.
pub const TIERED: &str = "TieredReservation";
/// The one API version that is read and written.
pub const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
/// The kind of the document.
pub const KIND: &str = "KubeletConfiguration";

impl Default for KubeletConfiguration {
    #[allow(clippy::too_many_lines)] // a field a line
    fn default() -> Self {
        Self {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            static_pod_path: String::new(),
            static_pod_url: String::new(),
            static_pod_url_header: BTreeMap::new(),
            file_check_frequency: GoDuration::secs(20),
            http_check_frequency: GoDuration::secs(20),
            pod_logs_dir: "/var/log/pods".into(),
            address: "0.0.0.0".into(),
            port: 10250,
            read_only_port: 0,
            enable_system_log_handler: true,
            enable_system_log_query: false,
            enable_server: true,
            enable_debugging_handlers: true,
            tls_cert_file: String::new(),
            tls_private_key_file: String::new(),
            tls_cipher_suites: Vec::new(),
            tls_curve_preferences: Vec::new(),
            tls_min_version: String::new(),
            streaming_connection_idle_timeout: GoDuration::secs(4 * 3600),
            // Upstream's default is false for a file without the field, and kubeadm always writes true.
            rotate_certificates: true,
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            event_record_qps: 50,
            event_burst: 100,
            healthz_port: 10248,
            healthz_bind_address: "127.0.0.1".into(),
            cluster_domain: String::new(),
            cluster_dns: Vec::new(),
            node_status_update_frequency: GoDuration::secs(10),
            node_status_report_frequency: GoDuration::secs(300),
            node_lease_duration_seconds: 40,
            register_node: true,
            shutdown_grace_period: GoDuration::secs(0),
            shutdown_grace_period_critical_pods: GoDuration::secs(0),
            shutdown_grace_period_by_pod_priority: Vec::new(),
            cgroup_root: String::new(),
            cgroup_driver: "cgroupfs".into(),
            max_pods: 110,
            pods_per_core: 0,
            pod_pids_limit: -1,
            resolv_conf: "/etc/resolv.conf".into(),
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: GoDuration(std::time::Duration::from_millis(100)),
            node_status_max_images: 50,
            serialize_image_pulls: None,
            max_parallel_image_pulls: None,
            registry_pull_qps: 5,
            registry_burst: 10,
            image_pull_credentials_verification_policy: "NeverVerifyPreloadedImages".into(),
            preloaded_images_verification_allowlist: Vec::new(),
            image_minimum_gc_age: GoDuration::secs(120),
            image_maximum_gc_age: GoDuration::secs(0),
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            eviction_hard: default_eviction_hard(),
            eviction_soft: BTreeMap::new(),
            eviction_soft_grace_period: BTreeMap::new(),
            eviction_pressure_transition_period: GoDuration::secs(300),
            eviction_max_pod_grace_period: 0,
            eviction_minimum_reclaim: BTreeMap::new(),
            merge_default_eviction_settings: false,
            local_storage_capacity_isolation: true,
            feature_gates: BTreeMap::new(),
            memory_throttling_factor: 0.9,
            memory_reservation_policy: "None".into(),
            qos_reserved: BTreeMap::new(),
            protect_kernel_defaults: false,
            fail_swap_on: true,
            single_process_oom_kill: None,
            memory_swap: MemorySwap::default(),
            container_log_max_size: "10Mi".into(),
            container_log_max_files: 5,
            container_log_monitor_interval: GoDuration::secs(10),
            container_log_max_workers: 1,
            system_reserved: BTreeMap::new(),
            kube_reserved: BTreeMap::new(),
            reserved_system_cpus: String::new(),
            system_reserved_cgroup: String::new(),
            kube_reserved_cgroup: String::new(),
            enforce_node_allocatable: vec!["pods".into()],
            allowed_unsafe_sysctls: Vec::new(),
            provider_id: String::new(),
            crash_loop_back_off: CrashLoopBackOff::default(),
            seccomp_default: false,
            volume_stats_agg_period: GoDuration::secs(60),
            user_namespaces: UserNamespaces::default(),
            register_with_taints: Vec::new(),
            container_runtime_endpoint: "unix:///run/containerd/containerd.sock".into(),
            image_service_endpoint: String::new(),
            runtime_request_timeout: GoDuration::secs(120),
            kube_api_qps: None,
            kube_api_burst: None,
            oom_score_adj: -999,
            max_open_files: 1_000_000,
            fail_cgroup_v1: false,
            unheeded: BTreeMap::new(),
        }
    }
}

impl KubeletConfiguration {
    /// With the defaults that depend on other fields.
    #[must_use]
    pub fn completed(mut self) -> Self {
        let parallel = self.max_parallel_image_pulls.is_some_and(|max| max > 1);
        self.serialize_image_pulls.get_or_insert(!parallel);
        if self.memory_reservation_policy.is_empty() {
            "None".clone_into(&mut self.memory_reservation_policy);
        }
        if self.merge_default_eviction_settings {
            for (signal, threshold) in default_eviction_hard() {
                self.eviction_hard.entry(signal).or_insert(threshold);
            }
        }
        self
    }

    /// Whether a kubelet with this configuration would have a feature gate on.
    #[must_use]
    pub fn gate(&self, name: &str) -> bool {
        gates::is_on(&self.feature_gates, name)
    }

    /// Whether memory is protected as it is asked for.
    #[must_use]
    pub fn protects_memory(&self) -> bool {
        self.gate(MEMORY_QOS) && self.memory_reservation_policy == TIERED
    }
}

/// Upstream's hard eviction thresholds on Linux (`DefaultEvictionHard`).
fn default_eviction_hard() -> BTreeMap<String, String> {
    [
        ("memory.available", "100Mi"),
        ("nodefs.available", "10%"),
        ("nodefs.inodesFree", "5%"),
        ("imagefs.available", "15%"),
        ("imagefs.inodesFree", "5%"),
    ]
    .into_iter()
    .map(|(signal, threshold)| (signal.to_owned(), threshold.to_owned()))
    .collect()
}
