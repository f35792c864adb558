//! Fields that nothing here acts on: upstream's checks of them, so that a file which no kubelet would take is not taken here.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::duration::GoDuration;
use super::kubelet::KubeletConfiguration;
use super::validate::{ENFORCEMENTS, Found};

const TOPOLOGY_POLICIES: [&str; 4] = ["none", "best-effort", "restricted", "single-numa-node"];
const TOPOLOGY_SCOPES: [&str; 2] = ["container", "pod"];
const HAIRPIN_MODES: [&str; 3] = ["none", "hairpin-veth", "promiscuous-bridge"];
/// The only one whose hidden metrics can be asked for.
const PREVIOUS_MINOR: &str = "1.35";
const MILLION: i64 = 1_000_000;

/// Those whose values are judged.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Unheeded {
    #[serde(rename = "cgroupsPerQOS")]
    cgroups_per_qos: Option<bool>,
    hairpin_mode: Option<String>,
    iptables_drop_bit: Option<i32>,
    iptables_masquerade_bit: Option<i32>,
    logging: Logging,
    reserved_memory: Vec<ReservedMemory>,
    run_once: bool,
    #[serde(rename = "serverTLSBootstrap")]
    server_tls_bootstrap: bool,
    show_hidden_metrics_for_version: String,
    system_cgroups: String,
    topology_manager_policy: Option<String>,
    topology_manager_scope: Option<String>,
    tracing: Tracing,
}

type Check = fn(&Value) -> Result<(), serde_json::Error>;

/// Those of which any value of the right type will do.
const TYPES: &[(&str, Check)] = &[
    ("configMapAndSecretChangeDetectionStrategy", reads::<String>),
    ("contentType", reads::<String>),
    ("cpuManagerPolicy", reads::<String>),
    ("cpuManagerPolicyOptions", reads::<BTreeMap<String, String>>),
    ("cpuManagerReconcilePeriod", reads::<GoDuration>),
    ("enableContentionProfiling", reads::<bool>),
    ("enableControllerAttachDetach", reads::<bool>),
    ("enableDebugFlagsHandler", reads::<bool>),
    ("enableProfilingHandler", reads::<bool>),
    ("kernelMemcgNotification", reads::<bool>),
    ("kubeletCgroups", reads::<String>),
    ("makeIPTablesUtilChains", reads::<bool>),
    ("memoryManagerPolicy", reads::<String>),
    ("podCIDR", reads::<String>),
    ("syncFrequency", reads::<GoDuration>),
    ("topologyManagerPolicyOptions", reads::<BTreeMap<String, String>>),
    ("volumePluginDir", reads::<String>),
];

fn reads<T: DeserializeOwned>(value: &Value) -> Result<(), serde_json::Error> {
    T::deserialize(value).map(drop)
}

/// `LoggingConfiguration`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Logging {
    format: String,
    verbosity: i64,
    vmodule: Vec<Value>,
    options: BTreeMap<String, Options>,
}

/// `OutputRoutingOptions`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Options {
    split_stream: bool,
    info_buffer_size: Value,
}

/// `MemoryReservation`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReservedMemory {
    numa_node: i32,
    limits: BTreeMap<String, Value>,
}

/// `TracingConfiguration`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Tracing {
    endpoint: Option<String>,
    sampling_rate_per_million: Option<i64>,
}

/// Judges all of them.
pub(super) fn validate(config: &KubeletConfiguration, found: &mut Found) {
    let fields = &config.unheeded;
    for (name, value) in fields {
        let other = TYPES.iter().find(|(typed, _)| typed == name);
        let alone = || Value::Object(Map::from_iter([(name.clone(), value.clone())]));
        let read = other.map_or_else(|| Unheeded::deserialize(&alone()).map(drop), |(_, check)| check(value));
        if let Err(error) = read {
            found.plain(format!("{name}: {error}"));
        }
    }
    let all: Map<String, Value> = fields.clone().into_iter().collect();
    let Ok(unheeded) = Unheeded::deserialize(&Value::Object(all)) else { return };
    numbers(config, &unheeded, found);
    choices(&unheeded, found);
    cgroups(config, &unheeded, found);
    reserved_memory(&unheeded.reserved_memory, found);
    logging(config, &unheeded.logging, found);
    tracing(&unheeded.tracing, found);
    found.check(!unheeded.server_tls_bootstrap || config.gate("RotateKubeletServerCertificate"), || {
        "serverTLSBootstrap true requires feature gate RotateKubeletServerCertificate".into()
    });
}

fn numbers(config: &KubeletConfiguration, unheeded: &Unheeded, found: &mut Found) {
    for (field, bit) in [
        ("iptablesDropBit (--iptables-drop-bit)", unheeded.iptables_drop_bit),
        ("iptablesMasqueradeBit (--iptables-masquerade-bit)", unheeded.iptables_masquerade_bit),
    ] {
        let bit = bit.unwrap_or_default();
        found.check((0..=31).contains(&bit), || format!("{field} {bit} must be between 0 and 31, inclusive"));
    }
    found.check(!unheeded.run_once, || {
        "runOnce (--runOnce) true, Runonce mode has been deprecated and should not be set".into()
    });
    found.check(unheeded.system_cgroups.is_empty() || !config.cgroup_root.is_empty(), || {
        "systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not specified".into()
    });
    let version = unheeded.show_hidden_metrics_for_version.as_str();
    if !["", PREVIOUS_MINOR].contains(&version) {
        found.plain(format!(
            "invalid showHiddenMetricsForVersion: showHiddenMetricsForVersion: Invalid value: {version:?}: must be omitted or have the value '{PREVIOUS_MINOR}'; only the previous minor version is allowed"
        ));
    }
}

/// Fields with so many values.
fn choices(unheeded: &Unheeded, found: &mut Found) {
    let chosen = |value: &Option<String>, first: &str| value.clone().unwrap_or_else(|| first.to_owned());
    let policy = chosen(&unheeded.topology_manager_policy, "none");
    found.check(TOPOLOGY_POLICIES.contains(&policy.as_str()), || {
        let all = TOPOLOGY_POLICIES.map(|policy| format!("{policy:?}")).join(" ");
        format!("topologyManagerPolicy (--topology-manager-policy) {policy:?} must be one of: [{all}]")
    });
    let scope = chosen(&unheeded.topology_manager_scope, "container");
    found.check(TOPOLOGY_SCOPES.contains(&scope.as_str()), || {
        let [a, b] = TOPOLOGY_SCOPES;
        format!("topologyManagerScope (--topology-manager-scope) {scope:?} must be one of: {a:?}, or {b:?}")
    });
    let mode = chosen(&unheeded.hairpin_mode, "none");
    found.check(HAIRPIN_MODES.contains(&mode.as_str()), || {
        let [a, b, c] = HAIRPIN_MODES;
        format!("option {mode:?} specified for hairpinMode (--hairpin-mode). Valid options are {a:?}, {b:?} or {c:?}")
    });
}

fn cgroups(config: &KubeletConfiguration, unheeded: &Unheeded, found: &mut Found) {
    if unheeded.cgroups_per_qos != Some(false) {
        return;
    }
    let wanted = config.enforce_node_allocatable.iter();
    for what in wanted.filter(|what| *what != "none" && ENFORCEMENTS.contains(&what.as_str())) {
        found.say(format!(
            "cgroupsPerQOS (--cgroups-per-qos) must be set to true when {what:?} contained in enforceNodeAllocatable (--enforce-node-allocatable)"
        ));
    }
}

fn reserved_memory(reserved: &[ReservedMemory], found: &mut Found) {
    let mut seen = Vec::new();
    for ReservedMemory { numa_node: node, limits } in reserved {
        for (name, size) in limits {
            found.check(name == "memory" || name.starts_with("hugepages-"), || {
                format!(
                    "the limit type {name:?} for NUMA node {node} is not supported, only [memory hugepages-<HugePageSize>] is accepted"
                )
            });
            let text = size.as_str().map_or_else(|| size.to_string(), str::to_owned);
            match text.parse::<Quantity>() {
                Ok(size) => found.check(!size.is_zero(), || {
                    format!("reserved memory may not be zero for NUMA node {node} and resource {name:?}")
                }),
                Err(error) => found.plain(format!("reservedMemory: {name}: {error}")),
            }
            found.check(!seen.contains(&(node, name)), || {
                format!("the reserved memory has a duplicate value for NUMA node {node} and resource {name:?}")
            });
            seen.push((node, name));
        }
    }
}

fn logging(config: &KubeletConfiguration, logging: &Logging, found: &mut Found) {
    let Logging { format, verbosity, vmodule, options } = logging;
    if !["", "text", "json"].contains(&format.as_str()) {
        found.plain(format!("logging.format: Invalid value: {format:?}: Unsupported log format"));
    }
    if *verbosity < 0 || *verbosity > i64::from(i32::MAX) {
        found.plain(format!("logging.verbosity: Invalid value: {verbosity}: Must be <= {}", i32::MAX));
    }
    if !vmodule.is_empty() && format == "json" {
        found.plain("logging.vmodule: Forbidden: Only supported for text log format".into());
    }
    if config.gate("LoggingAlphaOptions") {
        return;
    }
    for (kind, Options { split_stream, info_buffer_size }) in options {
        let buffers = !super::fields::is_zero(info_buffer_size);
        for (name, _) in [("splitStream", *split_stream), ("infoBufferSize", buffers)].iter().filter(|(_, set)| *set) {
            found.plain(format!("logging.options.{kind}.{name}: Forbidden: Feature LoggingAlphaOptions is disabled"));
        }
    }
}

fn tracing(tracing: &Tracing, found: &mut Found) {
    let invalid = |field: &str, value: String, why: &str| format!("tracing.{field}: Invalid value: {value}: {why}");
    if let Some(rate) = tracing.sampling_rate_per_million {
        let field = "samplingRatePerMillion";
        if rate < 0 {
            found.plain(invalid(field, rate.to_string(), "sampling rate must be positive"));
        }
        if rate > MILLION {
            let why = "sampling rate per million must be less than or equal to one million";
            found.plain(invalid(field, rate.to_string(), why));
        }
    }
    let Some((scheme, _)) = tracing.endpoint.as_deref().and_then(|endpoint| endpoint.split_once("//")) else { return };
    let scheme = scheme.trim_end_matches(':');
    if !["dns", "unix", "unix-abstract"].contains(&scheme) {
        let value = format!("{:?}", tracing.endpoint.as_deref().unwrap_or_default());
        let why = format!(
            "unsupported scheme: {scheme}.  Options are none, dns, unix, or unix-abstract.  See https://github.com/grpc/grpc/blob/master/doc/naming.md"
        );
        found.plain(invalid("endpoint", value, &why));
    }
}
