//! The checks that upstream's `ValidateKubeletConfiguration` makes of the fields that are obeyed here, in its words, and what else a kubelet
//! would not start with. All that is wrong is said at once.

use std::time::Duration;

use api::quantity::Quantity;
use serde_json::Value;

use super::kubelet::{KubeletConfiguration, MEMORY_QOS, TIERED};
use super::{duration, gates, reserved, serving_tls, unheeded};
use crate::eviction::threshold;
use crate::images::records::check_pattern;
use crate::pods::{sysctls, userns};

pub(super) const ENFORCEMENTS: [&str; 6] =
    ["pods", "system-reserved", "system-reserved-compressible", "kube-reserved", "kube-reserved-compressible", "none"];
const POLICIES: [&str; 4] =
    ["NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify"];

/// The gate of [`POLICIES`], and the one that is in force without it.
pub(super) const IMAGES_GATE: &str = "KubeletEnsureSecretPulledImages";
pub(super) const IMAGES_WITHOUT_GATE: &str = "NeverVerify";

/// What was found.
#[derive(Default)]
pub(super) struct Found(Vec<String>);

impl Found {
    pub(super) fn check(&mut self, good: bool, message: impl FnOnce() -> String) {
        if !good {
            self.say(message());
        }
    }

    pub(super) fn say(&mut self, message: impl std::fmt::Display) {
        self.plain(format!("invalid configuration: {message}"));
    }

    /// What upstream says without these words.
    pub(super) fn plain(&mut self, message: String) {
        self.0.push(message);
    }
}

/// Everything that is wrong.
#[must_use]
pub fn validate(config: &KubeletConfiguration) -> Vec<String> {
    let mut found = Found::default();
    numbers(config, &mut found);
    images(config, &mut found);
    allocatable(config, &mut found);
    reserved(config, &mut found);
    memory_qos(config, &mut found);
    serving(config, &mut found);
    shutdown(config, &mut found);
    user_namespaces(config, &mut found);
    logs(config, &mut found);
    taints(config, &mut found);
    endpoints(config, &mut found);
    gated(config, &mut found);
    unheeded::validate(config, &mut found);
    if let Err(wrong) = threshold::parse(config) {
        found.say(format!("{}: {}", wrong.field, wrong.message));
    }
    for pattern in &config.allowed_unsafe_sysctls {
        if let Err(message) = sysctls::check_pattern(pattern) {
            found.say(format!("allowedUnsafeSysctls: {message}"));
        }
    }
    found.0
}

/// Ports that are none, of a document: they do not fit into the configuration.
#[must_use]
pub fn ports(document: &Value) -> Vec<String> {
    let mut found = Found::default();
    for (name, flag, least) in
        [("healthzPort", "--healthz-port", 1), ("port", "--port", 1), ("readOnlyPort", "--read-only-port", 0)]
    {
        if let Some(port) = document.get(name).and_then(Value::as_i64) {
            found.check((0..=65_535).contains(&port), || {
                format!("{name} ({flag}) {port} must be between {least} and 65535, inclusive")
            });
        }
    }
    found.0
}

fn numbers(config: &KubeletConfiguration, found: &mut Found) {
    found.check(config.node_lease_duration_seconds > 0, || "nodeLeaseDurationSeconds must be greater than 0".into());
    let numbers = [
        ("eventBurst (--event-burst)", config.event_burst),
        ("eventRecordQPS (--event-qps)", config.event_record_qps),
        ("maxPods (--max-pods)", config.max_pods),
        ("podsPerCore (--pods-per-core)", config.pods_per_core),
        ("registryBurst (--registry-burst)", config.registry_burst),
        ("registryPullQPS (--registry-qps)", config.registry_pull_qps),
        ("evictionMaxPodGracePeriod (--eviction-max-pod-grace-period)", config.eviction_max_pod_grace_period),
        ("kubeAPIBurst (--kube-api-burst)", config.kube_api_burst.unwrap_or(0)),
        ("kubeAPIQPS (--kube-api-qps)", config.kube_api_qps.unwrap_or(0)),
    ];
    let numbers = numbers.map(|(field, value)| (field, i64::from(value)));
    for (field, value) in numbers.into_iter().chain([("maxOpenFiles (--max-open-files)", config.max_open_files)]) {
        found.check(value >= 0, || format!("{field} {value} must not be a negative number"));
    }
    let most = config.node_status_max_images;
    found.check(most >= -1, || format!("nodeStatusMaxImages (--node-status-max-images) {most} must be -1 or greater"));
    let score = config.oom_score_adj;
    found.check((-1000..=1000).contains(&score), || {
        format!("oomScoreAdj (--oom-score-adj) {score} must be between -1000 and 1000, inclusive")
    });
    let period = config.cpu_cfs_quota_period.0;
    found.check((Duration::from_millis(1)..=Duration::from_secs(1)).contains(&period), || {
        let period = duration::format(period);
        format!("cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {{{period}}} must be between 1ms and 1sec, inclusive")
    });
    let swap = &config.memory_swap.swap_behavior;
    found.check(["", "LimitedSwap", "NoSwap"].contains(&swap.as_str()), || {
        format!("memorySwap.swapBehavior {swap:?} must be one of: \"\", \"LimitedSwap\" or \"NoSwap\"")
    });
    if let Some(longest) = config.crash_loop_back_off.max_container_restart_period {
        found.check((Duration::from_secs(1)..=Duration::from_secs(300)).contains(&longest.0), || {
            let seconds = longest.0.as_secs_f64();
            format!(
                "CrashLoopBackOff.MaxContainerRestartPeriod (got: {seconds} seconds) must be set between 1s and 300s"
            )
        });
    }
}

/// Garbage collection of images, pulls, and who may use an image that is there.
fn images(config: &KubeletConfiguration, found: &mut Found) {
    let (high, low) = (config.image_gc_high_threshold_percent, config.image_gc_low_threshold_percent);
    let (high_name, low_name) = (
        "imageGCHighThresholdPercent (--image-gc-high-threshold)",
        "imageGCLowThresholdPercent (--image-gc-low-threshold)",
    );
    for (field, percent) in [(high_name, high), (low_name, low)] {
        found.check((0..=100).contains(&percent), || format!("{field} {percent} must be between 0 and 100, inclusive"));
    }
    found.check(low < high, || format!("{low_name} {low} must be less than {high_name} {high}"));
    let (min, max) = (config.image_minimum_gc_age, config.image_maximum_gc_age);
    found.check(max.0.is_zero() || max > min, || {
        let (max, min) = (duration::format(max.0), duration::format(min.0));
        format!("imageMaximumGCAge {max} must be greater than imageMinimumGCAge {min}")
    });
    if let Some(parallel) = config.max_parallel_image_pulls {
        found.check(parallel >= 1, || format!("maxParallelImagePulls {parallel} must be a positive number"));
        found.check(config.serialize_image_pulls != Some(true) || parallel <= 1, || {
            "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is set to false"
                .into()
        });
    }
    let policy = config.image_pull_credentials_verification_policy.as_str();
    found.check(POLICIES.contains(&policy), || {
        let [a, b, c, d] = POLICIES;
        format!(
            "option {policy:?} specified for imagePullCredentialsVerificationPolicy. Valid options are {a:?}, {b:?}, {c:?} or {d:?}"
        )
    });
    let allowlist = &config.preloaded_images_verification_allowlist;
    if !allowlist.is_empty() && policy != "NeverVerifyAllowlistedImages" {
        // Upstream's spelling of the second field.
        found.say(
            "can't set `preloadedImagesVerificationAllowlist` if `imagePullCredentialsVertificationPolicy` is not \"NeverVerifyAllowlistedImages\"",
        );
    } else if let Some(message) = allowlist.iter().find_map(|pattern| check_pattern(pattern)) {
        found.say(format!("invalid image pattern in `preloadedImagesVerificationAllowlist`: {message}"));
    }
}

fn allocatable(config: &KubeletConfiguration, found: &mut Found) {
    for (field, list) in [("systemReserved", &config.system_reserved), ("kubeReserved", &config.kube_reserved)] {
        for (name, text) in list {
            found.check(reserved::RESOURCES.contains(&name.as_str()), || {
                format!("{field}: cannot reserve {name:?} resource")
            });
            found.check(text.parse::<Quantity>().is_ok_and(|quantity| !quantity.is_negative()), || {
                format!("{field}: {name}: {text:?} is not a quantity of 0 or more")
            });
        }
    }
    let field = "enforceNodeAllocatable (--enforce-node-allocatable)";
    let wanted = &config.enforce_node_allocatable;
    let has = |name: &str| wanted.iter().any(|what| what == name);
    for whole in ["system-reserved", "kube-reserved"] {
        let part = format!("{whole}-compressible");
        found.check(!(has(whole) && has(&part)), || {
            format!("both {whole:?} and {part:?} cannot be specified together in {field}")
        });
    }
    for (index, what) in wanted.iter().enumerate() {
        if wanted.iter().take(index).any(|before| before == what) {
            found.say(format!("duplicated enforcements {what:?} in {field}"));
            continue;
        }
        found.check(ENFORCEMENTS.contains(&what.as_str()), || {
            let [a, b, c, d, e, f] = ENFORCEMENTS;
            format!(
                "option {what:?} specified for {field}. Valid options are {a:?}, {b:?}, {c:?}, {d:?}, {e:?} or {f:?}"
            )
        });
    }
    cgroups_of_reservations(config, found);
    found.check(!has("none") || wanted.len() == 1, || {
        format!("{field} may not contain additional enforcements when \"none\" is specified")
    });
    let driver = &config.cgroup_driver;
    found.check(["cgroupfs", "systemd"].contains(&driver.as_str()), || {
        format!("cgroupDriver (--cgroup-driver) {driver:?} must be cgroupfs or systemd")
    });
}

/// Who enforces a reservation must say of which cgroup.
fn cgroups_of_reservations(config: &KubeletConfiguration, found: &mut Found) {
    let field = "enforceNodeAllocatable (--enforce-node-allocatable)";
    for (what, cgroup, name) in [
        ("system-reserved", &config.system_reserved_cgroup, "systemReservedCgroup (--system-reserved-cgroup)"),
        ("kube-reserved", &config.kube_reserved_cgroup, "kubeReservedCgroup (--kube-reserved-cgroup)"),
    ] {
        let part = format!("{what}-compressible");
        found.check(!cgroup.is_empty() || !(config.enforces(what) || config.enforces(&part)), || {
            format!("{name} must be specified when {what:?} or {part:?} included in {field}")
        });
    }
}

fn reserved(config: &KubeletConfiguration, found: &mut Found) {
    let cpus = &config.reserved_system_cpus;
    let cgroups = [&config.system_reserved_cgroup, &config.kube_reserved_cgroup];
    found.check(cpus.is_empty() || cgroups.iter().all(|cgroup| cgroup.is_empty()), || {
        "can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup (--system-reserved-cgroup) or \
         kubeReservedCgroup (--kube-reserved-cgroup)"
            .into()
    });
    if let Err(error) = reserved::cpus(cpus) {
        found.say(format!("unable to parse reservedSystemCPUs (--reserved-cpus) {cpus}, error: {error}"));
    }
    for (name, text) in &config.qos_reserved {
        found.check(name == "memory", || format!("qosReserved: cannot reserve {name:?} resource"));
        if let Err(error) = reserved::percentage(text) {
            let what = format!("failed to parse percentage {text:?} for {name:?} resource");
            found.check(name != "memory", || format!("qosReserved: {what}: {error}"));
        }
    }
}

fn memory_qos(config: &KubeletConfiguration, found: &mut Found) {
    let factor = config.memory_throttling_factor;
    found.check(factor > 0.0 && factor <= 1.0, || {
        format!("memoryThrottlingFactor {factor} must be greater than 0 and less than or equal to 1.0")
    });
    let policy = config.memory_reservation_policy.as_str();
    found.check(policy != TIERED || config.gate(MEMORY_QOS), || {
        format!("memoryReservationPolicy {policy:?} requires MemoryQoS feature gate to be enabled")
    });
    found.check(["None", TIERED].contains(&policy), || {
        format!("option {policy:?} specified for memoryReservationPolicy. Valid options are \"None\" or {TIERED:?}")
    });
}

fn serving(config: &KubeletConfiguration, found: &mut Found) {
    found.check(config.port != 0, || "port (--port) 0 must be between 1 and 65535, inclusive".into());
    let mode = &config.authorization.mode;
    found.check(["AlwaysAllow", "Webhook"].contains(&mode.as_str()), || {
        format!("authorization.mode (--authorization-mode) {mode:?} must be AlwaysAllow or Webhook")
    });
    found.check(config.tls_cert_file.is_empty() == config.tls_private_key_file.is_empty(), || {
        "tlsCertFile (--tls-cert-file) must be set together with tlsPrivateKeyFile (--tls-private-key-file)".into()
    });
    serving_tls::errors(config).into_iter().for_each(|error| found.plain(error));
    found.check(!config.enable_system_log_query || config.enable_system_log_handler, || {
        "enableSystemLogHandler is required for enableSystemLogQuery".into()
    });
}

fn shutdown(config: &KubeletConfiguration, found: &mut Found) {
    let (whole, critical) = (config.shutdown_grace_period.0, config.shutdown_grace_period_critical_pods.0);
    let go = duration::format;
    found.check(critical <= whole, || {
        format!("shutdownGracePeriodCriticalPods {{{}}} must be <= shutdownGracePeriod {{{}}}", go(critical), go(whole))
    });
    for (field, period) in [("shutdownGracePeriod", whole), ("shutdownGracePeriodCriticalPods", critical)] {
        found.check(period.is_zero() || period >= Duration::from_secs(1), || {
            format!("{field} {{{}}} must be either zero or otherwise >= 1 sec", go(period))
        });
    }
    found.check(
        config.shutdown_grace_period_by_pod_priority.is_empty() || (whole.is_zero() && critical.is_zero()),
        || "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time".into(),
    );
}

fn user_namespaces(config: &KubeletConfiguration, found: &mut Found) {
    let Some(ids) = config.user_namespaces.ids_per_pod else { return };
    let unit = i64::from(userns::UNIT);
    let most = i64::from(u32::MAX);
    if ids < unit {
        found.say(format!("userNamespaces.idsPerPod must not be less than {unit}"));
    } else if ids % unit != 0 {
        found.say(format!("userNamespaces.idsPerPod must be a multiple of {unit}"));
    } else if ids > most {
        found.say(format!("userNamespaces.idsPerPod must not be more than {most}"));
    }
}

fn logs(config: &KubeletConfiguration, found: &mut Found) {
    found.check(config.container_log_monitor_interval.0 >= Duration::from_secs(3), || {
        "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s".into()
    });
    found.check(config.container_log_max_workers >= 1, || {
        "containerLogMaxWorkers must be greater than or equal to 1".into()
    });
    found.check(config.container_log_max_files > 1, || "containerLogMaxFiles must be greater than 1".into());
    let folder = config.pod_logs_dir.as_str();
    found.check(folder.starts_with('/'), || format!("pod logs path {folder:?} must be absolute path"));
    let is_clean = folder == "/" || folder.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    found.check(is_clean, || format!("pod logs path {folder:?} must be normalized"));
    // Upstream's spelling.
    found.check(folder.is_ascii(), || format!("pod logs path {folder:?} mut contains ASCII characters only"));
}

fn taints(config: &KubeletConfiguration, found: &mut Found) {
    for taint in &config.register_with_taints {
        let value = taint.value.as_deref().unwrap_or_default();
        let is_good = api::names::label_key_errors(&taint.key).is_empty()
            && api::names::label_value_errors(value).is_empty()
            && ["", "NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&taint.effect.as_str());
        if !is_good {
            found.plain(format!("invalid taint: registerWithTaints: {{{} {value} {}}}", taint.key, taint.effect));
        }
        found.check(taint.time_added.is_none(), || "taint.TimeAdded is not nil".into());
    }
}

/// Sockets that the agent would not start with.
fn endpoints(config: &KubeletConfiguration, found: &mut Found) {
    let endpoints = [
        ("containerRuntimeEndpoint (--container-runtime-endpoint)", &config.container_runtime_endpoint),
        ("imageServiceEndpoint (--image-service-endpoint)", &config.image_service_endpoint),
    ];
    for (field, endpoint) in endpoints.into_iter().filter(|(_, endpoint)| !endpoint.is_empty()) {
        if let Err(error) = cri::endpoint(endpoint) {
            found.say(format!("{field}: {error}"));
        }
    }
}

/// Feature gates, and what takes one that is set to false.
fn gated(config: &KubeletConfiguration, found: &mut Found) {
    gates::errors(&config.feature_gates).into_iter().for_each(|error| found.plain(error));
    let off = |name: &str| !config.gate(name);
    let period = config.cpu_cfs_quota_period.0;
    found.check(!off("CustomCPUCFSQuotaPeriod") || period == Duration::from_millis(100), || {
        let period = duration::format(period);
        format!("cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {{{period}}} requires feature gate CustomCPUCFSQuotaPeriod")
    });
    let waits = [config.shutdown_grace_period, config.shutdown_grace_period_critical_pods];
    found.check(!off("GracefulNodeShutdown") || waits.iter().all(|wait| wait.0.is_zero()), || {
        "specifying shutdownGracePeriod or shutdownGracePeriodCriticalPods requires feature gate GracefulNodeShutdown"
            .into()
    });
    let by_priority = &config.shutdown_grace_period_by_pod_priority;
    found.check(!off("GracefulNodeShutdownBasedOnPodPriority") || by_priority.is_empty(), || {
        "Specifying shutdownGracePeriodByPodPriority requires feature gate GracefulNodeShutdownBasedOnPodPriority"
            .into()
    });
    let longest = config.crash_loop_back_off.max_container_restart_period;
    found.check(!off("KubeletCrashLoopBackOffMax") || longest.is_none(), || {
        "FeatureGate KubeletCrashLoopBackOffMax not enabled, CrashLoopBackOff.MaxContainerRestartPeriod must not be set"
            .into()
    });
    // Without the gate nobody is asked who they are: that policy is what a file without one then gets.
    let policy = config.image_pull_credentials_verification_policy.as_str();
    found.check(!off(IMAGES_GATE) || policy == IMAGES_WITHOUT_GATE, || {
        format!(
            "`imagePullCredentialsVerificationPolicy` must not be set if {} feature gate is not enabled",
            IMAGES_GATE
        )
    });
}
