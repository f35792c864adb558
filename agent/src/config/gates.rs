//! `featureGates`: which there are, what upstream refuses of them (k8s.io/component-base/featuregate), and which ask for something that is
//! otherwise here. A gate that no kubelet reads changes nothing on a node of either, and deserves no word.

use std::collections::BTreeMap;

/// What a configuration sets.
pub(super) type Gates = BTreeMap<String, bool>;

/// Read from upstream's packages: pkg/features, and those of apiserver, client-go, component-base, apiextensions-apiserver and controller-manager.
const KNOWN: &str = include_str!("feature_gates.txt");

/// Gates that a kubelet reads and that may be set, what holds here, and why it does whatever is asked for. `None`: neither value does.
/// Those whose two values differ only inside of a kubelet are left out, and those that [`super::validate`] heeds.
const HERE: &[(&str, Option<bool>, &str)] = &[
    ("AllAlpha", Some(false), "what there is of alpha features does not go by gates"),
    ("AllBeta", None, "what there is of beta features does not go by gates"),
    ("AllowDNSOnlyNodeCSR", Some(false), "a serving certificate is asked for once the node has addresses"),
    ("CPUManagerPolicyAlphaOptions", Some(false), MANAGERS),
    ("CRIListStreaming", Some(false), "the runtime is asked for its lists in one answer"),
    ("CSIVolumeHealth", Some(false), "there are no CSI volumes"),
    ("ChangeContainerStatusOnKubeletRestart", Some(false), "containers keep their status when the agent starts anew"),
    ("ClusterTrustBundleProjection", Some(false), "volumes do not project trust bundles"),
    ("ComponentFlagz", Some(false), "the agent has no flags to show"),
    ("ComponentStatusz", Some(false), "`agent status` says it, no page does"),
    ("ContainerCheckpoint", Some(false), "containers are not checkpointed"),
    ("ContainerRestartRules", Some(true), "restart rules are always kept"),
    ("ContainerStopSignals", Some(true), "stop signals are always sent as pods name them"),
    ("DRAExtendedResource", Some(false), DEVICES),
    ("DRAWorkloadResourceClaims", Some(false), DEVICES),
    ("EnvFiles", Some(true), "variables from files are always read"),
    ("ExtendWebSocketsToKubelet", Some(true), "clients may always speak WebSocket"),
    ("HostnameOverride", Some(true), "`hostnameOverride` of pods is always kept"),
    ("ImageVolumeWithDigest", Some(false), "the status does not show the digests of image volumes"),
    ("InPlacePodLevelResourcesVerticalScaling", Some(true), "pods are always resized in place"),
    ("InPlacePodVerticalScalingExclusiveCPUs", Some(false), MANAGERS),
    ("InPlacePodVerticalScalingExclusiveMemory", Some(false), MANAGERS),
    ("InPlacePodVerticalScalingInitContainers", Some(true), "init containers are always resized in place"),
    ("KubeletInUserNamespace", Some(false), "the agent runs as root of the machine"),
    ("KubeletSeparateDiskGC", Some(true), "images and containers may always lie on disks of their own"),
    ("KubeletServiceAccountTokenForCredentialProviders", Some(false), "there are no plugins for credentials of images"),
    ("LocalStorageCapacityIsolationFSQuotaMonitoring", Some(false), "what volumes hold is counted, without quotas"),
    ("NativeHistograms", Some(false), "metrics are served as text"),
    ("NodeDeclaredFeatures", Some(true), "the status always declares what the node can do"),
    ("PodAndContainerStatsFromCRI", Some(false), "statistics are read from cgroups"),
    ("PodCertificateRequest", Some(false), "volumes do not project certificates"),
    ("PodLevelResourceManagers", Some(false), MANAGERS),
    ("PodLevelResources", Some(true), "resources of whole pods are always kept"),
    ("PodLogsQuerySplitStreams", Some(true), "logs can always be asked for by stream"),
    ("PodReadyToStartContainersCondition", Some(true), "the condition is always there"),
    ("PodsAPI", Some(false), "`agent pods` tells of pods, no socket with gRPC"),
    ("PreventStaticPodAPIReferences", Some(true), "static pods never refer to objects"),
    ("ReduceDefaultCrashLoopBackOffDecay", Some(false), "crashLoopBackOff.maxContainerRestartPeriod sets the limit"),
    ("ReloadKubeletClientCAFile", Some(false), "clientCAFile is read at the start"),
    ("ReloadKubeletServerCertificateFile", Some(true), "tlsCertFile is always read anew when it changes"),
    ("ResourceHealthStatus", Some(false), DEVICES),
    ("ResourceHealthStatusMessage", Some(false), DEVICES),
    ("RestartAllContainersOnContainerExits", Some(true), "the action is always carried out"),
    ("RuntimeClassInImageCriApi", Some(false), "images are the same for all runtime classes"),
    ("SELinuxMount", Some(false), "volumes are not mounted with SELinux labels"),
    ("TaintTolerationComparisonOperators", Some(true), "the operators Gt and Lt always work"),
    ("TopologyManagerPolicyAlphaOptions", Some(false), MANAGERS),
    ("UserNamespacesHostNetworkSupport", Some(false), "pods with users of their own have their own network"),
];
const MANAGERS: &str = "CPUs and memory are not pinned to containers";
const DEVICES: &str = "there are no devices for pods";

/// A gate as upstream knows it.
struct Gate {
    name: &'static str,
    stage: &'static str,
    on: bool,
    locked: bool,
    needs: Vec<&'static str>,
}

fn known() -> impl Iterator<Item = Gate> {
    KNOWN.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split(' ');
        let (name, stage, on) = (words.next()?, words.next()?, words.next()? == "on");
        let rest: Vec<&str> = words.collect();
        let needs = rest.last().filter(|_| rest.contains(&"needs")).map(|names| names.split(',').collect());
        Some(Gate { name, stage, on, locked: rest.contains(&"locked"), needs: needs.unwrap_or_default() })
    })
}

impl Gate {
    /// As a kubelet takes it: what is said of the gate itself wins over what is said of its stage.
    fn is_on(&self, gates: &Gates) -> bool {
        let of_stage = match self.stage {
            "alpha" => gates.get("AllAlpha"),
            "beta" => gates.get("AllBeta"),
            _ => None,
        };
        gates.get(self.name).or(of_stage).copied().unwrap_or(self.on)
    }
}

/// Whether a kubelet with this configuration would have a gate on.
pub(super) fn is_on(gates: &Gates, name: &str) -> bool {
    known().find(|gate| gate.name == name).is_some_and(|gate| gate.is_on(gates))
}

/// What upstream refuses, in its words.
pub(super) fn errors(gates: &Gates) -> Vec<String> {
    let all: Vec<Gate> = known().collect();
    let find = |name: &str| all.iter().find(|gate| gate.name == name);
    let refused = gates.iter().filter_map(|(name, on)| match find(name) {
        None => Some(format!("unrecognized feature gate: {name}")),
        Some(gate) if gate.locked && gate.on != *on => {
            Some(format!("cannot set feature gate {name} to {on}, feature is locked to {}", gate.on))
        }
        Some(_) => None,
    });
    let refused: Vec<String> = refused.collect();
    if !refused.is_empty() {
        return refused;
    }
    let alone = all.iter().filter(|gate| gate.is_on(gates)).filter_map(|gate| {
        let off = |name: &&&str| find(name).is_some_and(|needed| !needed.is_on(gates));
        let off: Vec<&str> = gate.needs.iter().filter(off).copied().collect();
        (!off.is_empty()).then(|| {
            format!("{} is enabled, but depends on features that are disabled: [{}]", gate.name, off.join(" "))
        })
    });
    alone.collect()
}

/// Those that ask for something else than what is here.
pub(super) fn warnings(gates: &Gates) -> Vec<String> {
    let otherwise = gates.iter().filter_map(|(name, asked)| {
        let (_, here, reason) = HERE.iter().find(|(gate, ..)| gate == name)?;
        (*here != Some(*asked))
            .then(|| format!("feature gate {name:?} of KubeletConfiguration has no effect here: {reason}"))
    });
    otherwise.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(set: &[(&str, bool)]) -> Gates {
        set.iter().map(|(name, on)| ((*name).to_owned(), *on)).collect()
    }

    #[test]
    fn every_gate_that_is_spoken_of_can_be_set() {
        let all: Vec<Gate> = known().collect();
        assert_eq!(all.len(), 242);
        for (name, ..) in HERE {
            assert!(all.iter().any(|gate| gate.name == *name && !gate.locked), "{name}");
        }
        assert!(HERE.windows(2).all(|two| two[0].0 < two[1].0), "HERE is kept sorted");
        let needed = all.iter().flat_map(|gate| &gate.needs);
        assert!(needed.into_iter().all(|name| all.iter().any(|gate| gate.name == *name)));
        assert!(errors(&Gates::new()).is_empty());
    }

    #[test]
    fn what_upstream_refuses_is_refused() {
        for (set, says) in [
            (gates(&[("Invalid", true)]), "unrecognized feature gate: Invalid"),
            (gates(&[("NodeSwap", false)]), "cannot set feature gate NodeSwap to false, feature is locked to true"),
            (
                gates(&[("PodLevelResources", false)]),
                "InPlacePodLevelResourcesVerticalScaling is enabled, but depends on features that are disabled: [PodLevelResources]",
            ),
        ] {
            assert_eq!(errors(&set), [says]);
        }
        assert!(errors(&gates(&[("NodeSwap", true), ("AllAlpha", false), ("MemoryQoS", true)])).is_empty());
        let both = gates(&[("GracefulNodeShutdown", true), ("AllBeta", false)]);
        assert!(is_on(&both, "GracefulNodeShutdown") && !is_on(&both, "KubeletCrashLoopBackOffMax"));
    }

    #[test]
    fn what_happens_anyway_deserves_no_word() {
        let anyway = gates(&[
            ("ContainerStopSignals", true),
            ("CSIVolumeHealth", false),
            ("NodeSwap", true),
            ("HPAScaleToZero", true),
            ("RotateKubeletServerCertificate", true),
        ]);
        assert_eq!(warnings(&anyway), [""; 0]);
        assert_eq!(
            warnings(&gates(&[("CSIVolumeHealth", true)])),
            ["feature gate \"CSIVolumeHealth\" of KubeletConfiguration has no effect here: there are no CSI volumes"]
        );
    }
}
