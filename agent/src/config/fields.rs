//! Which fields `KubeletConfiguration` has (kubelet.config.k8s.io/v1beta1, Kubernetes 1.36), and which of them Keelson
//! obeys. A user's file is never refused for a field that upstream knows; a field that has no effect here is named.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::kubelet::KubeletConfiguration;
use super::{defaults, gates, serving_tls};
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
    "containerLogMaxFiles",
    "containerLogMaxSize",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "containerRuntimeEndpoint",
    "cpuCFSQuota",
    "cpuCFSQuotaPeriod",
    "crashLoopBackOff",
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
    "imageServiceEndpoint",
    "kind",
    "kubeAPIBurst",
    "kubeAPIQPS",
    "kubeReserved",
    "kubeReservedCgroup",
    "localStorageCapacityIsolation",
    "maxOpenFiles",
    "maxParallelImagePulls",
    "maxPods",
    "memoryReservationPolicy",
    "memorySwap",
    "memoryThrottlingFactor",
    "mergeDefaultEvictionSettings",
    "nodeLeaseDurationSeconds",
    "nodeStatusMaxImages",
    "nodeStatusReportFrequency",
    "nodeStatusUpdateFrequency",
    "oomScoreAdj",
    "podLogsDir",
    "podPidsLimit",
    "podsPerCore",
    "port",
    "preloadedImagesVerificationAllowlist",
    "protectKernelDefaults",
    "providerID",
    "qosReserved",
    "readOnlyPort",
    "registerNode",
    "registerWithTaints",
    "registryBurst",
    "registryPullQPS",
    "reservedSystemCPUs",
    "resolvConf",
    "rotateCertificates",
    "runtimeRequestTimeout",
    "seccompDefault",
    "serializeImagePulls",
    "shutdownGracePeriod",
    "shutdownGracePeriodByPodPriority",
    "shutdownGracePeriodCriticalPods",
    "singleProcessOOMKill",
    "staticPodPath",
    "staticPodURL",
    "staticPodURLHeader",
    "streamingConnectionIdleTimeout",
    "systemReserved",
    "systemReservedCgroup",
    "tlsCertFile",
    "tlsCipherSuites",
    "tlsCurvePreferences",
    "tlsMinVersion",
    "tlsPrivateKeyFile",
    "userNamespaces",
    "volumeStatsAggPeriod",
];

/// Fields that upstream has and that have no effect here, and why.
const KNOWN: &[(&str, &str)] = &[
    ("cgroupsPerQOS", "pods always have cgroups below those of their QoS classes"),
    ("configMapAndSecretChangeDetectionStrategy", "what pods refer to is always watched"),
    ("contentType", "the agent speaks JSON with the API server"),
    ("cpuManagerPolicy", MANAGERS),
    ("cpuManagerPolicyOptions", MANAGERS),
    ("cpuManagerReconcilePeriod", MANAGERS),
    ("enableContentionProfiling", GO),
    ("enableControllerAttachDetach", "the cluster's controller attaches volumes, no node does"),
    ("enableDebugFlagsHandler", "the agent has no flags that could be changed while it runs"),
    ("enableProfilingHandler", GO),
    ("hairpinMode", "a pod reaches itself through a Service in any case; kubelets leave this to CNI plugins, too"),
    ("iptablesDropBit", "rules of nftables are used, which mark no packets"),
    ("iptablesMasqueradeBit", "rules of nftables are used, which mark no packets"),
    ("kernelMemcgNotification", "memory is looked at every ten seconds, and every second when it gets scarce"),
    ("kubeletCgroups", "systemd puts the agent into the cgroup of its unit"),
    ("logging", "the agent logs to the journal, and KEELSON_LOG says how much"),
    ("makeIPTablesUtilChains", "rules of nftables are used, and no chains of iptables"),
    ("memoryManagerPolicy", MANAGERS),
    ("podCIDR", "it is for kubelets without an API server: the Node's spec.podCIDR holds"),
    ("reservedMemory", MANAGERS),
    ("runOnce", "an agent runs until it is ended"),
    ("serverTLSBootstrap", "the serving certificate is the cluster's wherever tlsCertFile names no other"),
    ("showHiddenMetricsForVersion", "no metrics are hidden"),
    ("syncFrequency", "pods are looked at when something changes, and not by the clock"),
    ("systemCgroups", "systemd puts the machine's programs into cgroups"),
    ("topologyManagerPolicy", MANAGERS),
    ("topologyManagerPolicyOptions", MANAGERS),
    ("topologyManagerScope", MANAGERS),
    ("tracing", "the agent sends no traces"),
    ("volumePluginDir", "there are no FlexVolumes"),
];
const MANAGERS: &str = "CPUs and memory are not pinned to containers";
const GO: &str = "profiles are those of programs in Go";

/// Values that some installers write and that ask for exactly what happens anyway, upstream's defaults among them: not
/// worth a warning.
fn is_moot(field: &str, value: &Value) -> bool {
    let text = |expected: &[&str]| value.as_str().is_some_and(|value| expected.contains(&value));
    let is = |expected: bool| value.as_bool() == Some(expected);
    match field {
        // The node's serving certificate is the cluster's.
        "serverTLSBootstrap" => is(true),
        // Of what is not there, nothing can be shown or left out.
        "enableDebugFlagsHandler" | "enableProfilingHandler" | "makeIPTablesUtilChains" => value.is_boolean(),
        "contentType" => text(&["application/vnd.kubernetes.protobuf", "application/json"]),
        "hairpinMode" => text(&["promiscuous-bridge", "hairpin-veth"]),
        "logging" => is_default_logging(value),
        "syncFrequency" => text(&["1m0s", "1m", "60s"]),
        _ => defaults::of_unheeded().get(field) == Some(value),
    }
}

/// As it is where nobody has chosen anything, kubeadm's rendering of it included.
fn is_default_logging(logging: &Value) -> bool {
    let is_default = |(name, value): (&String, &Value)| match name.as_str() {
        _ if is_zero(value) => true,
        "format" => value == "text",
        "flushFrequency" => value == "5s" || value == 5_000_000_000_i64,
        _ => false,
    };
    logging.as_object().is_some_and(|fields| fields.iter().all(is_default))
}

/// Whether a value is what upstream takes for "not set", all the way down.
pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => ["", "0", "0s"].contains(&text.as_str()),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_zero),
    }
}

/// The warnings that a document deserves, one a field, in the file's order.
#[must_use]
pub fn warnings(document: &Value) -> Vec<String> {
    let Some(fields) = document.as_object() else { return Vec::new() };
    let mut warnings = Vec::new();
    for (field, value) in fields {
        let name = field.as_str();
        if let Some((_, reason)) = KNOWN.iter().find(|(known, _)| *known == name) {
            let is_unset = value.is_null() || (is_zero(value) && !OTHER_DEFAULTS.contains(&name));
            if !is_unset && !is_moot(name, value) {
                warnings.push(format!("field {name:?} of KubeletConfiguration has no effect here: {reason}"));
            }
        } else if !OBEYED.contains(&name) {
            warnings.push(format!("unknown field {name:?} in KubeletConfiguration"));
        }
    }
    // Gates are judged one by one.
    warnings.extend(gates::warnings(&field(fields, "featureGates")));
    let (suites, curves) =
        (field::<Vec<String>>(fields, "tlsCipherSuites"), field::<Vec<i32>>(fields, "tlsCurvePreferences"));
    warnings.extend(serving_tls::warnings(&suites, &curves, &field::<String>(fields, "tlsMinVersion")));
    warnings
}

/// Those of [`KNOWN`] of which false or 0 is not what they are where they are not set.
const OTHER_DEFAULTS: &[&str] = &[
    "cgroupsPerQOS",
    "enableControllerAttachDetach",
    "iptablesDropBit",
    "iptablesMasqueradeBit",
    "serverTLSBootstrap",
];

/// A field, or nothing where it is not what it should be: that is an error in another place.
fn field<T: DeserializeOwned + Default>(fields: &Map<String, Value>, name: &str) -> T {
    fields.get(name).and_then(|value| T::deserialize(value).ok()).unwrap_or_default()
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

    /// `KubeletConfiguration` of k8s.io/kubelet/config/v1beta1 at v0.36: what `json:"…"` says of each of its fields, and those of `TypeMeta`.
    const UPSTREAM: &str = include_str!("kubelet_fields.txt");

    #[test]
    fn each_field_of_upstreams_is_in_one_of_the_lists() {
        let upstream: Vec<&str> = UPSTREAM.split_whitespace().collect();
        let ours: Vec<&str> = OBEYED.iter().chain(KNOWN.iter().map(|(field, _)| field)).copied().collect();
        for field in &upstream {
            assert_eq!(ours.iter().filter(|ours| *ours == field).count(), 1, "{field}");
        }
        assert_eq!(ours.len(), upstream.len());
        assert!(KNOWN.windows(2).all(|two| two[0].0 < two[1].0), "KNOWN is kept sorted");
        assert!(KNOWN.iter().all(|(_, reason)| !reason.is_empty() && !reason.ends_with('.')));
    }

    #[test]
    fn what_is_said_to_be_obeyed_is_read() {
        let mut read = serde_json::to_value(KubeletConfiguration::default()).unwrap();
        // Those that are written only where they are set.
        for field in ["kubeAPIBurst", "kubeAPIQPS", "singleProcessOOMKill"] {
            read[field] = Value::Null;
        }
        for field in OBEYED {
            assert!(read.get(*field).is_some(), "{field}");
        }
    }

    #[test]
    fn names_unknown_and_ineffective_fields_only() {
        let document = json!({"maxPods": 5, "maxPodz": 5, "tracing": {"endpoint": "x"}, "cpuManagerPolicy": "none",
            "volumeStatsAggPeriod": "0s"});
        assert_eq!(
            warnings(&document),
            [
                "unknown field \"maxPodz\" in KubeletConfiguration",
                "field \"tracing\" of KubeletConfiguration has no effect here: the agent sends no traces",
            ]
        );
    }

    #[test]
    fn what_happens_anyway_deserves_no_word() {
        let moot = json!({"cgroupsPerQOS": true, "serverTLSBootstrap": true, "hairpinMode": "promiscuous-bridge", "syncFrequency": "1m0s",
            "iptablesDropBit": 15, "logging": {"format": "text", "verbosity": 0, "flushFrequency": "5s", "options": {"json": {"infoBufferSize": "0"}}},
            "runOnce": false, "enableProfilingHandler": false, "makeIPTablesUtilChains": true, "topologyManagerPolicyOptions": {},
            "featureGates": {"HPAScaleToZero": true}, "tlsMinVersion": "VersionTLS12"});
        assert_eq!(warnings(&moot), [""; 0]);
        let otherwise = json!({"cgroupsPerQOS": false, "logging": {"format": "json"}, "serverTLSBootstrap": false,
            "featureGates": {"CSIVolumeHealth": true}, "tlsMinVersion": "VersionTLS10"});
        let warned = warnings(&otherwise);
        assert_eq!(warned.len(), 5, "{warned:?}");
        assert!(warned.iter().all(|warning| warning.contains(" of KubeletConfiguration has no effect here: ")));
    }
}
