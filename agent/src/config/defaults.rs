//! Upstream's defaults of the fields that nothing here acts on: what `/configz` says of them where nobody chose anything. A client reads its
//! answer as a whole configuration, upstream's suites write it back, and a field that is not there is false or empty to them.

use serde_json::{Map, Value, json};

use super::kubelet::KubeletConfiguration;

/// Of each field whose default is neither false nor empty.
pub(super) fn of_unheeded() -> Map<String, Value> {
    let defaults = json!({
        "cgroupsPerQOS": true,
        "configMapAndSecretChangeDetectionStrategy": "Watch",
        "contentType": "application/vnd.kubernetes.protobuf",
        "cpuManagerPolicy": "none",
        "cpuManagerReconcilePeriod": "10s",
        "enableControllerAttachDetach": true,
        "enableDebugFlagsHandler": true,
        "enableProfilingHandler": true,
        "hairpinMode": "promiscuous-bridge",
        "iptablesDropBit": 15,
        "iptablesMasqueradeBit": 14,
        "logging": {
            "format": "text",
            "flushFrequency": "5s",
            "verbosity": 0,
            "options": {"text": {"infoBufferSize": "0"}, "json": {"infoBufferSize": "0"}},
        },
        "makeIPTablesUtilChains": true,
        "memoryManagerPolicy": "None",
        "syncFrequency": "1m0s",
        "topologyManagerPolicy": "none",
        "topologyManagerScope": "container",
        "volumePluginDir": "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/",
    });
    if let Value::Object(defaults) = defaults { defaults } else { Map::new() }
}

impl KubeletConfiguration {
    /// All of it, with a value for each field that has one upstream.
    ///
    /// # Errors
    /// None is known: all of it is maps, texts and numbers.
    pub fn whole(&self) -> Result<Value, serde_json::Error> {
        let mut whole = of_unheeded();
        // Written only where somebody set them.
        whole.extend([("kubeAPIBurst".to_owned(), json!(100)), ("kubeAPIQPS".to_owned(), json!(50))]);
        if let Value::Object(set) = serde_json::to_value(self)? {
            whole.extend(set);
        }
        Ok(Value::Object(whole))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse_kubelet;

    /// Those that pkg/kubelet/apis/config/v1beta1/defaults.go of 1.36 gives a value, and that are not nested or as the machine is.
    const DEFAULTED: &[&str] = &[
        "enableServer",
        "syncFrequency",
        "fileCheckFrequency",
        "httpCheckFrequency",
        "address",
        "port",
        "authentication",
        "authorization",
        "registryPullQPS",
        "registryBurst",
        "eventRecordQPS",
        "eventBurst",
        "enableDebuggingHandlers",
        "healthzPort",
        "healthzBindAddress",
        "oomScoreAdj",
        "streamingConnectionIdleTimeout",
        "nodeStatusReportFrequency",
        "nodeStatusUpdateFrequency",
        "nodeLeaseDurationSeconds",
        "imageMinimumGCAge",
        "imageGCHighThresholdPercent",
        "imageGCLowThresholdPercent",
        "volumeStatsAggPeriod",
        "cgroupsPerQOS",
        "cgroupDriver",
        "cpuManagerPolicy",
        "cpuManagerReconcilePeriod",
        "memoryManagerPolicy",
        "topologyManagerPolicy",
        "topologyManagerScope",
        "runtimeRequestTimeout",
        "hairpinMode",
        "maxPods",
        "podPidsLimit",
        "resolvConf",
        "cpuCFSQuota",
        "cpuCFSQuotaPeriod",
        "nodeStatusMaxImages",
        "maxOpenFiles",
        "contentType",
        "kubeAPIQPS",
        "kubeAPIBurst",
        "serializeImagePulls",
        "evictionPressureTransitionPeriod",
        "mergeDefaultEvictionSettings",
        "enableControllerAttachDetach",
        "makeIPTablesUtilChains",
        "iptablesMasqueradeBit",
        "iptablesDropBit",
        "failSwapOn",
        "containerLogMaxSize",
        "containerLogMaxFiles",
        "containerLogMaxWorkers",
        "containerLogMonitorInterval",
        "configMapAndSecretChangeDetectionStrategy",
        "enforceNodeAllocatable",
        "volumePluginDir",
        "logging",
        "enableSystemLogHandler",
        "enableProfilingHandler",
        "enableDebugFlagsHandler",
        "seccompDefault",
        "failCgroupV1",
        "memoryThrottlingFactor",
        "memoryReservationPolicy",
        "registerNode",
        "localStorageCapacityIsolation",
        "containerRuntimeEndpoint",
        "podLogsDir",
        "crashLoopBackOff",
        "imagePullCredentialsVerificationPolicy",
    ];

    #[test]
    fn what_configz_says_has_every_default_and_can_be_written_back() {
        let whole = KubeletConfiguration::default().completed().whole().unwrap();
        for field in DEFAULTED {
            assert!(whole.get(*field).is_some_and(|value| !value.is_null() && value != ""), "{field} in {whole}");
        }
        let (read, warnings) = parse_kubelet(Path::new("configz"), &whole.to_string()).unwrap();
        assert_eq!(warnings, [""; 0]);
        assert_eq!(read.whole().unwrap(), whole);
    }

    #[test]
    fn what_somebody_set_is_said_as_it_was_set() {
        let text = "{apiVersion: kubelet.config.k8s.io/v1beta1, kind: KubeletConfiguration, topologyManagerPolicy: best-effort, kubeAPIQPS: 7}";
        let whole = parse_kubelet(Path::new("x"), text).unwrap().0.whole().unwrap();
        assert_eq!((&whole["topologyManagerPolicy"], &whole["kubeAPIQPS"]), (&json!("best-effort"), &json!(7)));
    }
}
