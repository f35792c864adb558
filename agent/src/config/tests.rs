use std::time::Duration;

use super::*;

fn parse(text: &str) -> Result<(KubeletConfiguration, Vec<String>), Error> {
    parse_kubelet(Path::new("agent.yaml"), text)
}

const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

/// Of a node `n1`, with upstream's defaults.
pub fn minimal() -> Config {
    Config {
        layout: Layout::new("/c", "/d", "/r"),
        kubelet: KubeletConfiguration::default(),
        node: NodeSettings {
            node_name: "n1".into(),
            server: "https://127.0.0.1:6443".parse().unwrap(),
            node_ip: None,
            node_labels: [("tier".to_owned(), "x".to_owned())].into(),
            data_dir: "/d".into(),
            run_dir: "/r".into(),
            cni_conf_dir: Some("/n".into()),
            cni_bin_dir: Some("/b".into()),
        },
    }
}

#[test]
fn an_empty_document_holds_the_defaults() {
    let (config, warnings) = parse(HEAD).unwrap();
    assert_eq!(config, KubeletConfiguration::default().completed());
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config.max_pods, 110);
    assert_eq!((config.memory_throttling_factor, config.memory_reservation_policy.as_str()), (0.9, "None"));
    assert!(!config.protect_kernel_defaults && !config.protects_memory());
    assert_eq!(config.eviction_hard["memory.available"], "100Mi");
}

/// What kubeadm 1.36 writes to /var/lib/kubelet/config.yaml, zero durations and all.
const KUBEADM: &str = r#"apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    cacheTTL: 0s
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
  webhook:
    cacheAuthorizedTTL: 0s
    cacheUnauthorizedTTL: 0s
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: ""
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
kind: KubeletConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
"#;

#[test]
fn kubeadms_file_works() {
    let (config, warnings) = parse(KUBEADM).unwrap();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(config.static_pod_path, "/etc/kubernetes/manifests");
    assert_eq!(config.file_check_frequency.0, Duration::from_secs(20));
    assert_eq!(config.node_status_report_frequency.0, Duration::from_secs(300));
    assert_eq!(config.authorization.webhook.cache_unauthorized_ttl.0, Duration::from_secs(30));
    assert_eq!(config.authentication.webhook.cache_ttl.0, Duration::from_secs(120));
    assert_eq!(config.cluster_dns, ["10.96.0.10"]);
    assert_eq!(config.cgroup_driver, "systemd");
    assert_eq!(config.authentication.x509.client_ca_file, "/etc/kubernetes/pki/ca.crt");
}

#[test]
fn a_wrong_type_is_an_error_that_names_the_file() {
    let error = parse(&format!("{HEAD}maxPods: many\n")).unwrap_err().to_string();
    assert!(error.starts_with("agent.yaml: maxPods: invalid type: string \"many\""), "{error}");
}

#[test]
fn another_kind_or_version_is_refused() {
    for text in [
        "{}",
        "apiVersion: v1\nkind: ConfigMap\n",
        "apiVersion: kubelet.config.k8s.io/v1\nkind: KubeletConfiguration\n",
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains("expected kubelet.config.k8s.io/v1beta1 KubeletConfiguration"), "{error}");
    }
}

#[test]
fn a_document_over_another_sets_what_it_names() {
    let (cluster, _) = parse(&format!("{HEAD}clusterDNS: [10.1.0.10]\nmaxPods: 7\n")).unwrap();
    let own = format!("{HEAD}maxPods: 9\nevictionHard: {{memory.available: 5%}}\nunheardOf: 1\n");
    let (both, warnings) = parse_kubelet_over(Some(&cluster), Path::new("own.yaml"), &own).unwrap();
    assert_eq!((both.max_pods, both.cluster_dns.as_slice()), (9, &["10.1.0.10".to_owned()][..]));
    assert_eq!(both.eviction_hard, [("memory.available".to_owned(), "5%".to_owned())].into());
    assert!(warnings.iter().any(|w| w.contains("unheardOf")), "{warnings:?}");
}

#[test]
fn what_is_saved_is_loaded_again() {
    let dir = std::env::temp_dir().join(format!("keelson-config-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let config = Config {
        layout: Layout::new(&dir, "/var/lib/k", "/run/k"),
        kubelet: KubeletConfiguration { max_pods: 7, cluster_dns: vec!["10.1.0.10".into()], ..Default::default() },
        node: NodeSettings {
            node_name: "n1".into(),
            server: "https://[fd00::1]:6443".parse().unwrap(),
            node_ip: Some("10.0.0.1".parse().unwrap()),
            node_labels: [("a".to_owned(), "true".to_owned())].into(),
            data_dir: "/var/lib/k".into(),
            run_dir: "/run/k".into(),
            cni_conf_dir: Some("/c".into()),
            cni_bin_dir: Some("/b".into()),
        },
    };
    config.save().unwrap();
    let (loaded, warnings) = Config::load(&dir).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(loaded.kubelet, config.kubelet.completed());
    assert_eq!(loaded.node, config.node);
    assert_eq!(loaded.layout, config.layout);
}

/// Values, and what upstream says of them.
const WRONG: &[(&str, &str)] = &[
    ("maxPods: -1", "maxPods (--max-pods) -1 must not be a negative number"),
    ("cgroupDriver: none", "cgroupDriver (--cgroup-driver) \"none\" must be cgroupfs or systemd"),
    (
        "authorization: {mode: RBAC}",
        "authorization.mode (--authorization-mode) \"RBAC\" must be AlwaysAllow or Webhook",
    ),
    ("containerLogMaxFiles: 1", "containerLogMaxFiles must be greater than 1"),
    ("tlsCertFile: /x", "tlsCertFile (--tls-cert-file) must be set together"),
    (
        "imageGCHighThresholdPercent: 101",
        "imageGCHighThresholdPercent (--image-gc-high-threshold) 101 must be between 0 and 100, inclusive",
    ),
    (
        "imageGCLowThresholdPercent: 90",
        "imageGCLowThresholdPercent (--image-gc-low-threshold) 90 must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) 85",
    ),
    ("imageMaximumGCAge: 1m", "imageMaximumGCAge 1m0s must be greater than imageMinimumGCAge 2m0s"),
    ("maxParallelImagePulls: 0", "maxParallelImagePulls 0 must be a positive number"),
    (
        "serializeImagePulls: true\nmaxParallelImagePulls: 2",
        "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is set to false",
    ),
    (
        "imagePullCredentialsVerificationPolicy: Maybe",
        "option \"Maybe\" specified for imagePullCredentialsVerificationPolicy. Valid options are",
    ),
    ("preloadedImagesVerificationAllowlist: [a]", "can't set `preloadedImagesVerificationAllowlist` if"),
    ("enforceNodeAllocatable: [none, pods]", "may not contain additional enforcements when \"none\" is specified"),
    (
        "enforceNodeAllocatable: [pods, pods]",
        "duplicated enforcements \"pods\" in enforceNodeAllocatable (--enforce-node-allocatable)",
    ),
    ("memorySwap: {swapBehavior: Some}", "memorySwap.swapBehavior \"Some\" must be one of"),
    ("podLogsDir: logs", "pod logs path \"logs\" must be absolute path"),
    ("podLogsDir: /var//logs", "pod logs path \"/var//logs\" must be normalized"),
    (
        "cpuCFSQuotaPeriod: 2s",
        "cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {2s} must be between 1ms and 1sec, inclusive",
    ),
    ("crashLoopBackOff: {maxContainerRestartPeriod: 301s}", "(got: 301 seconds) must be set between 1s and 300s"),
    ("systemReserved: {cpu: much}", "systemReserved: cpu"),
    ("allowedUnsafeSysctls: [\"vm.*\"]", "allowedUnsafeSysctls: "),
    ("kubeReserved: {memory: -1Gi}", "kubeReserved: memory"),
    ("evictionHard: {memory.available: 110%}", "evictionHard: "),
    ("healthzPort: 65536", "healthzPort (--healthz-port) 65536 must be between 1 and 65535, inclusive"),
    ("readOnlyPort: -1", "readOnlyPort (--read-only-port) -1 must be between 0 and 65535, inclusive"),
    ("kubeAPIBurst: -1", "kubeAPIBurst (--kube-api-burst) -1 must not be a negative number"),
    ("kubeAPIQPS: -1", "kubeAPIQPS (--kube-api-qps) -1 must not be a negative number"),
    ("maxOpenFiles: -1", "maxOpenFiles (--max-open-files) -1 must not be a negative number"),
    ("oomScoreAdj: 1001", "oomScoreAdj (--oom-score-adj) 1001 must be between -1000 and 1000, inclusive"),
    ("containerLogMaxWorkers: 0", "containerLogMaxWorkers must be greater than or equal to 1"),
    ("imageServiceEndpoint: tcp://a", "imageServiceEndpoint (--image-service-endpoint): "),
    (
        "registerWithTaints: [{key: a, effect: NoSchedule, timeAdded: \"2026-01-01T00:00:00Z\"}]",
        "taint.TimeAdded is not nil",
    ),
];

#[test]
fn values_no_node_can_run_with_are_named() {
    for (change, says) in WRONG {
        refused(change, says);
    }
}

/// The same of fields that nothing here acts on, and of gates.
const WRONG_ALL_THE_SAME: &[(&str, &str)] = &[
    ("systemCgroups: /system", "systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not"),
    ("iptablesDropBit: 32", "iptablesDropBit (--iptables-drop-bit) 32 must be between 0 and 31, inclusive"),
    ("iptablesMasqueradeBit: -1", "iptablesMasqueradeBit (--iptables-masquerade-bit) -1 must be between 0 and 31"),
    ("runOnce: true", "runOnce (--runOnce) true, Runonce mode has been deprecated and should not be set"),
    (
        "cgroupsPerQOS: false",
        "cgroupsPerQOS (--cgroups-per-qos) must be set to true when \"pods\" contained in enforceNodeAllocatable (--enforce-node-allocatable)",
    ),
    (
        "topologyManagerPolicy: all",
        "topologyManagerPolicy (--topology-manager-policy) \"all\" must be one of: [\"none\" \"best-effort\"",
    ),
    (
        "topologyManagerScope: node",
        "topologyManagerScope (--topology-manager-scope) \"node\" must be one of: \"container\", or \"pod\"",
    ),
    ("hairpinMode: all", "option \"all\" specified for hairpinMode (--hairpin-mode). Valid options are \"none\","),
    (
        "reservedMemory: [{numaNode: 0, limits: {cpu: 1}}]",
        "the limit type \"cpu\" for NUMA node 0 is not supported, only [memory",
    ),
    (
        "reservedMemory: [{numaNode: 1, limits: {memory: \"0\"}}]",
        "reserved memory may not be zero for NUMA node 1 and resource \"memory\"",
    ),
    ("showHiddenMetricsForVersion: \"1.1\"", "showHiddenMetricsForVersion: Invalid value: \"1.1\": must be omitted"),
    ("logging: {format: xml}", "logging.format: Invalid value: \"xml\": Unsupported log format"),
    (
        "logging: {options: {json: {splitStream: true}}}",
        "logging.options.json.splitStream: Forbidden: Feature LoggingAlphaOptions",
    ),
    (
        "tracing: {samplingRatePerMillion: -1}",
        "tracing.samplingRatePerMillion: Invalid value: -1: sampling rate must be positive",
    ),
    ("tracing: {endpoint: \"http://a\"}", "tracing.endpoint: Invalid value: \"http://a\": unsupported scheme: http."),
    ("featureGates: {None: true}", "unrecognized feature gate: None"),
    ("featureGates: {NodeSwap: false}", "cannot set feature gate NodeSwap to false, feature is locked to true"),
    (
        "featureGates: {CustomCPUCFSQuotaPeriod: false}\ncpuCFSQuotaPeriod: 200ms",
        "{200ms} requires feature gate CustomCPUCFSQuotaPeriod",
    ),
    (
        "featureGates: {GracefulNodeShutdown: false, AllBeta: false}\nshutdownGracePeriod: 2s",
        "requires feature gate GracefulNodeShutdown",
    ),
    (
        "featureGates: {RotateKubeletServerCertificate: false}\nserverTLSBootstrap: true",
        "serverTLSBootstrap true requires",
    ),
    (
        "featureGates: {KubeletCrashLoopBackOffMax: false}\ncrashLoopBackOff: {maxContainerRestartPeriod: 9s}",
        "FeatureGate KubeletCrashLoopBackOffMax not",
    ),
    (
        "featureGates: {KubeletEnsureSecretPulledImages: false}\nimagePullCredentialsVerificationPolicy: AlwaysVerify",
        "must not be set if Kubelet",
    ),
    ("registerWithTaints: [{key: a b, effect: NoSchedule}]", "invalid taint: "),
    ("tlsMinVersion: TLS13", "unknown tls version \"TLS13\""),
    ("tlsCipherSuites: [AES]", "Cipher suite AES not supported or doesn't exist"),
    ("iptablesDropBit: many", "iptablesDropBit: invalid type: string \"many\""),
    ("syncFrequency: often", "syncFrequency: time: invalid duration \"often\""),
    ("enableProfilingHandler: 1", "enableProfilingHandler: invalid type"),
];

#[test]
fn what_no_kubelet_would_take_is_refused_though_nothing_acts_on_it() {
    for (change, says) in WRONG_ALL_THE_SAME {
        let error = parse(&format!("{HEAD}{change}\n")).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn what_nothing_acts_on_is_kept_and_named_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.yaml");
    fs::write(
        &path,
        format!("{HEAD}tracing: {{endpoint: \"a:1\"}}\nfeatureGates: {{CSIVolumeHealth: true}}\nkubeAPIQPS: 5\n"),
    )
    .unwrap();
    let (kubelet, warnings) = read_kubelet(std::slice::from_ref(&path)).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    fs::write(&path, to_yaml(&kubelet).unwrap()).unwrap();
    let (again, named) = read_kubelet(&[path]).unwrap();
    assert_eq!((&again, named.len()), (&kubelet, 2));
    assert_eq!((again.kube_api_qps, again.kube_api_burst), (Some(5), None));
}

#[test]
fn reservations_that_no_node_can_keep_are_named() {
    for (change, says) in [
        ("systemReserved: {hugepages-2Mi: 2Mi}", "systemReserved: cannot reserve \"hugepages-2Mi\" resource"),
        (
            "enforceNodeAllocatable: [system-reserved]",
            "systemReservedCgroup (--system-reserved-cgroup) must be specified when \"system-reserved\" or \"system-reserved-compressible\" included in enforceNodeAllocatable (--enforce-node-allocatable)",
        ),
        (
            "enforceNodeAllocatable: [pods, kube-reserved-compressible]",
            "kubeReservedCgroup (--kube-reserved-cgroup) must be specified when",
        ),
        (
            "reservedSystemCPUs: \"0\"\nkubeReservedCgroup: /kube",
            "can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup (--system-reserved-cgroup) or kubeReservedCgroup (--kube-reserved-cgroup)",
        ),
        (
            "reservedSystemCPUs: 1-x",
            "unable to parse reservedSystemCPUs (--reserved-cpus) 1-x, error: strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        ("qosReserved: {cpu: 50%}", "qosReserved: cannot reserve \"cpu\" resource"),
        ("qosReserved: {memory: half}", "qosReserved: failed to parse percentage \"half\" for \"memory\" resource"),
        (
            "memoryThrottlingFactor: 1.5",
            "memoryThrottlingFactor 1.5 must be greater than 0 and less than or equal to 1.0",
        ),
        (
            "memoryReservationPolicy: TieredReservation",
            "memoryReservationPolicy \"TieredReservation\" requires MemoryQoS feature gate to be enabled",
        ),
        (
            "memoryReservationPolicy: All",
            "option \"All\" specified for memoryReservationPolicy. Valid options are \"None\" or \"TieredReservation\"",
        ),
    ] {
        refused(change, says);
    }
}

/// `change` is invalid, and what is said of it has `says`.
fn refused(change: &str, says: &str) {
    let error = parse(&format!("{HEAD}{change}\n")).unwrap_err().to_string();
    assert!(error.starts_with("invalid configuration: ") && error.contains(says), "{error}");
}

#[test]
fn memory_is_protected_behind_its_gate() {
    let (config, warnings) =
        parse(&format!("{HEAD}featureGates: {{MemoryQoS: true}}\nmemoryReservationPolicy: TieredReservation\n"))
            .unwrap();
    assert!(config.protects_memory() && warnings.is_empty(), "{warnings:?}");
    let (unset, _) =
        parse(&format!("{HEAD}featureGates: {{MemoryQoS: true}}\nmemoryReservationPolicy: \"\"\n")).unwrap();
    assert_eq!((unset.memory_reservation_policy.as_str(), unset.protects_memory()), ("None", false));
}

#[test]
fn drop_in_files_change_field_by_field_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { layout: Layout::new(folder.path(), "/d", "/r"), ..minimal() };
    config.save().unwrap();
    let dropins = config.layout.dropin_dir();
    fs::create_dir(&dropins).unwrap();
    fs::write(dropins.join("20.conf"), format!("{HEAD}maxPods: 20\n")).unwrap();
    let first = "maxPods: 10\nclusterDNS: [10.1.0.10]\nevictionHard: {memory.available: 7%}\n";
    fs::write(dropins.join("10.conf"), format!("{HEAD}{first}")).unwrap();
    let (loaded, _) = Config::load(folder.path()).unwrap();
    assert_eq!((loaded.kubelet.max_pods, loaded.kubelet.cluster_dns.as_slice()), (20, &["10.1.0.10".to_owned()][..]));
    assert_eq!(loaded.kubelet.eviction_hard["memory.available"], "7%");
    assert!(loaded.kubelet.eviction_hard.contains_key("nodefs.available"), "as upstream: maps are merged");
    assert_eq!(config.with_dropins().unwrap().kubelet, loaded.kubelet);
    fs::write(dropins.join("30.conf"), "maxPods: 1\n").unwrap();
    let error = Config::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("30.conf: expected kubelet.config.k8s.io/v1beta1 KubeletConfiguration"), "{error}");
}

#[test]
fn who_has_not_joined_and_whose_files_are_broken_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let told = || format!("{:#}", Config::load_or_say(folder.path()).unwrap_err());
    assert!(told().starts_with("this machine has not joined a cluster (agent join): "), "{}", told());
    let config = Config { layout: Layout::new(folder.path(), "/d", "/r"), ..minimal() };
    config.save().unwrap();
    assert!(check_settings(folder.path()).is_ok());
    fs::write(config.layout.agent_yaml(), format!("{HEAD}maxPods: many\n")).unwrap();
    assert!(told().starts_with("this node's configuration cannot be used (agent config check"), "{}", told());
    fs::remove_file(config.layout.agent_yaml()).unwrap();
    assert!(!told().contains("has not joined"), "{}", told());
    fs::write(config.layout.node_yaml(), "nodeName: [").unwrap();
    assert!(check_settings(folder.path()).is_err());
    let path = config.layout.node_yaml();
    let refused = Error::File { path, source: std::io::ErrorKind::PermissionDenied.into() };
    assert!(refused.remedy().contains("sudo"));
}
