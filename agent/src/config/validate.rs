//! The checks that upstream's `ValidateKubeletConfiguration` makes of the fields that are obeyed here, in its words. All that
//! is wrong is said at once.

use std::time::Duration;

use api::quantity::Quantity;

use super::duration;
use super::kubelet::{KubeletConfiguration, MEMORY_QOS, TIERED};
use super::reserved;
use crate::eviction::threshold;
use crate::images::records::check_pattern;
use crate::pods::{sysctls, userns};

const ENFORCEMENTS: [&str; 6] =
    ["pods", "system-reserved", "system-reserved-compressible", "kube-reserved", "kube-reserved-compressible", "none"];
const POLICIES: [&str; 4] =
    ["NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify"];

/// What was found, without upstream's `invalid configuration: `.
#[derive(Default)]
struct Found(Vec<String>);

impl Found {
    fn check(&mut self, good: bool, message: impl FnOnce() -> String) {
        if !good {
            self.0.push(message());
        }
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
    if let Err(wrong) = threshold::parse(config) {
        found.0.push(format!("{}: {}", wrong.field, wrong.message));
    }
    for pattern in &config.allowed_unsafe_sysctls {
        if let Err(message) = sysctls::check_pattern(pattern) {
            found.0.push(format!("allowedUnsafeSysctls: {message}"));
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
    ];
    for (field, value) in numbers {
        found.check(value >= 0, || format!("{field} {value} must not be a negative number"));
    }
    let most = config.node_status_max_images;
    found.check(most >= -1, || format!("nodeStatusMaxImages (--node-status-max-images) {most} must be -1 or greater"));
    let period = config.cpu_cfs_quota_period.0;
    found.check((Duration::from_millis(1)..=Duration::from_secs(1)).contains(&period), || {
        let period = duration::format(period);
        format!("cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {period} must be between 1ms and 1sec, inclusive")
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
        found.0.push(
            "can't set `preloadedImagesVerificationAllowlist` if `imagePullCredentialsVertificationPolicy` is not \"NeverVerifyAllowlistedImages\""
                .into(),
        );
    } else if let Some(message) = allowlist.iter().find_map(|pattern| check_pattern(pattern)) {
        found.0.push(format!("invalid image pattern in `preloadedImagesVerificationAllowlist`: {message}"));
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
            found.0.push(format!("duplicated enforcements {what:?} in {field}"));
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
        found.0.push(format!("unable to parse reservedSystemCPUs (--reserved-cpus) {cpus}, error: {error}"));
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
        found.0.push(format!("userNamespaces.idsPerPod must not be less than {unit}"));
    } else if ids % unit != 0 {
        found.0.push(format!("userNamespaces.idsPerPod must be a multiple of {unit}"));
    } else if ids > most {
        found.0.push(format!("userNamespaces.idsPerPod must not be more than {most}"));
    }
}

fn logs(config: &KubeletConfiguration, found: &mut Found) {
    found.check(config.container_log_monitor_interval.0 >= Duration::from_secs(3), || {
        "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s".into()
    });
    found.check(config.container_log_max_files > 1, || "containerLogMaxFiles must be greater than 1".into());
    let folder = config.pod_logs_dir.as_str();
    found.check(folder.starts_with('/'), || format!("pod logs path {folder:?} must be absolute path"));
    let is_clean = folder == "/" || folder.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    found.check(is_clean, || format!("pod logs path {folder:?} must be normalized"));
    // Upstream's spelling.
    found.check(folder.is_ascii(), || format!("pod logs path {folder:?} mut contains ASCII characters only"));
}
