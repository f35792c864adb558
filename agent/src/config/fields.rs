//! Which fields `KubeletConfiguration` has (kubelet.config.k8s.io/v1beta1, Kubernetes 1.36), and which of them Keelson
//! obeys. A user's file is never refused for a field that upstream knows; a field that has no effect here is named.

use serde_json::Value;

use super::kubelet::KubeletConfiguration;
use crate::shutdown::plan;

/// Fields that Keelson obeys, or whose effect it has in any case.
const OBEYED: &[&str] = &[
    "address",
    "allowedUnsafeSysctls",
    "apiVersion",
    "authentication",
    "authorization",
    "cgroupDriver",
    "cgroupRoot",
    "clusterDNS",
    "clusterDomain",
    "configMapAndSecretChangeDetectionStrategy",
    "containerLogMaxFiles",
    "containerLogMaxSize",
    "containerLogMonitorInterval",
    "containerRuntimeEndpoint",
    "contentType",
    "cpuCFSQuota",
    "cpuCFSQuotaPeriod",
    "crashLoopBackOff",
    "enableControllerAttachDetach",
    "enableDebuggingHandlers",
    "enableServer",
    "enableSystemLogHandler",
    "enableSystemLogQuery",
    "enforceNodeAllocatable",
    "eventBurst",
    "eventRecordQPS",
    "evictionHard",
    "evictionMaxPodGracePeriod",
    "evictionMinimumReclaim",
    "evictionPressureTransitionPeriod",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "failCgroupV1",
    "failSwapOn",
    "featureGates",
    "fileCheckFrequency",
    "healthzBindAddress",
    "healthzPort",
    "httpCheckFrequency",
    "imageGCHighThresholdPercent",
    "imageGCLowThresholdPercent",
    "imageMaximumGCAge",
    "imageMinimumGCAge",
    "imagePullCredentialsVerificationPolicy",
    "kind",
    "kubeReserved",
    "kubeReservedCgroup",
    "localStorageCapacityIsolation",
    "logging",
    "maxPods",
    "maxParallelImagePulls",
    "memoryReservationPolicy",
    "memorySwap",
    "memoryThrottlingFactor",
    "mergeDefaultEvictionSettings",
    "nodeLeaseDurationSeconds",
    "nodeStatusMaxImages",
    "nodeStatusReportFrequency",
    "nodeStatusUpdateFrequency",
    "podLogsDir",
    "podPidsLimit",
    "podsPerCore",
    "port",
    "preloadedImagesVerificationAllowlist",
    "protectKernelDefaults",
    "providerID",
    "qosReserved",
    "readOnlyPort",
    "registerWithTaints",
    "registryBurst",
    "registryPullQPS",
    "reservedSystemCPUs",
    "resolvConf",
    "rotateCertificates",
    "seccompDefault",
    "serializeImagePulls",
    "shutdownGracePeriod",
    "shutdownGracePeriodByPodPriority",
    "shutdownGracePeriodCriticalPods",
    "singleProcessOOMKill",
    "staticPodPath",
    "staticPodURL",
    "staticPodURLHeader",
    "systemReserved",
    "systemReservedCgroup",
    "tlsCertFile",
    "tlsPrivateKeyFile",
    "userNamespaces",
    "volumeStatsAggPeriod",
];

/// Fields that upstream has and that have no effect here.
const KNOWN: &[&str] = &[
    "cgroupsPerQOS",
    "containerLogMaxWorkers",
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "enableContentionProfiling",
    "enableDebugFlagsHandler",
    "enableProfilingHandler",
    "hairpinMode",
    "imageServiceEndpoint",
    "iptablesDropBit",
    "iptablesMasqueradeBit",
    "kernelMemcgNotification",
    "kubeAPIBurst",
    "kubeAPIQPS",
    "kubeletCgroups",
    "makeIPTablesUtilChains",
    "maxOpenFiles",
    "memoryManagerPolicy",
    "oomScoreAdj",
    "podCIDR",
    "registerNode",
    "reservedMemory",
    "runOnce",
    "runtimeRequestTimeout",
    "serverTLSBootstrap",
    "showHiddenMetricsForVersion",
    "streamingConnectionIdleTimeout",
    "syncFrequency",
    "systemCgroups",
    "tlsCipherSuites",
    "tlsCurvePreferences",
    "tlsMinVersion",
    "topologyManagerPolicy",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "volumePluginDir",
];

/// Values that some installers write and that ask for exactly what happens anyway, upstream's defaults among them: not
/// worth a warning.
fn is_moot(field: &str, value: &Value) -> bool {
    let text = |expected: &str| value.as_str() == Some(expected);
    match field {
        _ if value.is_null() || text("0s") || text("") => true,
        "cpuManagerPolicy" | "topologyManagerPolicy" => text("none"),
        "memoryManagerPolicy" => text("None"),
        // Every pod has its cgroup, the node registers itself, and its serving certificate is the cluster's.
        "cgroupsPerQOS" | "registerNode" | "serverTLSBootstrap" => value.as_bool() == Some(true),
        "runtimeRequestTimeout" => text("2m0s") || text("2m"),
        "enableContentionProfiling" | "runOnce" => value.as_bool() == Some(false),
        _ => value.as_object().is_some_and(serde_json::Map::is_empty) || value.as_array().is_some_and(Vec::is_empty),
    }
}

/// The warnings that a configuration deserves, one a field, in the file's order.
#[must_use]
pub fn warnings(document: &Value) -> Vec<String> {
    let Some(fields) = document.as_object() else { return Vec::new() };
    fields
        .iter()
        .filter_map(|(field, value)| {
            let name = field.as_str();
            if OBEYED.contains(&name) {
                None
            } else if KNOWN.contains(&name) {
                (!is_moot(name, value)).then(|| format!("field {name:?} of KubeletConfiguration has no effect here"))
            } else {
                Some(format!("unknown field {name:?} in KubeletConfiguration"))
            }
        })
        .collect()
}

/// What of a configuration this very machine cannot do.
#[must_use]
pub fn impossible_here(config: &KubeletConfiguration, has_systemd: bool) -> Vec<String> {
    let holds_back = !plan::periods(config).is_empty() && !has_systemd;
    let field = if config.shutdown_grace_period_by_pod_priority.is_empty() {
        "shutdownGracePeriod"
    } else {
        "shutdownGracePeriodByPodPriority"
    };
    let shutdown = holds_back.then(|| {
        format!("field {field:?} of KubeletConfiguration has no effect here: only systemd's logind holds shutdowns back, and it does not run")
    });
    shutdown.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::duration::GoDuration;
    use serde_json::json;

    #[test]
    fn a_machine_without_systemd_cannot_hold_shutdowns_back() {
        let config =
            KubeletConfiguration { shutdown_grace_period: GoDuration::secs(30), ..KubeletConfiguration::default() };
        assert_eq!(impossible_here(&config, true), [""; 0]);
        assert!(
            impossible_here(&config, false)[0].starts_with("field \"shutdownGracePeriod\" of KubeletConfiguration")
        );
        assert_eq!(impossible_here(&KubeletConfiguration::default(), false), [""; 0]);
    }

    #[test]
    fn lists_are_sorted_apart_and_disjoint() {
        assert!(OBEYED.iter().all(|f| !KNOWN.contains(f)));
        assert!(KNOWN.windows(2).all(|w| w[0] < w[1]), "KNOWN is kept sorted");
    }

    #[test]
    fn names_unknown_and_ineffective_fields_only() {
        let document = json!({"maxPods": 5, "maxPodz": 5, "tracing": {"endpoint": "x"}, "cpuManagerPolicy": "none",
            "volumeStatsAggPeriod": "0s"});
        assert_eq!(
            warnings(&document),
            [
                "unknown field \"maxPodz\" in KubeletConfiguration",
                "field \"tracing\" of KubeletConfiguration has no effect here",
            ]
        );
    }
}
