//! What is run against what.

use std::fmt;
use std::str::FromStr;

use crate::harness::Part;

/// A set of upstream's tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// `[NodeConformance]` of test/e2e.
    Node,
    /// `[Conformance]` of test/e2e.
    Conformance,
    /// What else `[sig-node]` of test/e2e has.
    NodeFeatures,
    /// `[NodeConformance]` of test/e2e_node, against one node.
    E2eNode,
    /// critest, against `cri::fake`.
    Cri,
}

const ALL: [Suite; 5] = [Suite::Node, Suite::Conformance, Suite::NodeFeatures, Suite::E2eNode, Suite::Cri];

/// The kind of cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    Ours,
    Stock,
    /// The stock control plane with our agent.
    StockAgent,
    /// Our master with the stock kubelet and kube-proxy.
    MasterKubelet,
}

/// Tests that run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Parallel,
    /// What takes many minutes, and then one after the other what disturbs others or the cluster.
    Serial,
    /// One after the other, on a virtual machine with systemd and cgroup v2: what restarts the kubelet or the container runtime as units of
    /// systemd, and what only such a machine has.
    Machine,
}

/// What has to run alone, or takes many minutes, by the tags in its name.
const ALONE: [&str; 3] = ["[Serial]", "[Disruptive]", "[Slow]"];

/// Which tests of test/e2e_node run on a virtual machine, by what is in their names.
const ON_A_MACHINE: [&str; 15] = [
    // They restart the kubelet, most of them with another configuration.
    "CPU Manager [Serial]",
    "Containers Lifecycle when A node running restartable init containers reboots",
    "Device Plugin [Serial]",
    "ImageGarbageCollect",
    "Kubelet Endpoints",
    "KubletTLS",
    "MirrorPod [Serial] when kubelet restarts",
    "POD Resources API [Serial]",
    "ReloadKubeletClientCAFileTest",
    "StaticPod [Serial]",
    // It stops containerd.
    "the container runtime is temporarily down",
    // They read what only cgroup v2 has, and logs where a machine has them.
    "ContainerLogPath",
    "ContainerMetrics",
    "Summary API",
    "[Feature:NodeSwap]",
];

impl Stage {
    /// The stage that a test of a suite runs in.
    #[must_use]
    pub fn of(suite: Suite, name: &str) -> Self {
        let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        match (has(suite.on_a_machine()), has(&ALONE)) {
            (true, _) => Self::Machine,
            (false, true) => Self::Serial,
            (false, false) => Self::Parallel,
        }
    }

    /// Whether its tests run on a virtual machine rather than on hosts that are namespaces of this one.
    #[must_use]
    pub fn is_on_machine(self) -> bool {
        self == Self::Machine
    }
}

/// Features that are off unless an administrator turns them on: their tests are no part of conformance.
const OFF: &str = "!(Feature: containsAny OffByDefault) && !(BetaOffByDefault)";

/// What asks for more than these clusters have: drivers of devices, machines of a cloud, a journal.
const ELSEWHERE: &str =
    "!DRA && !(Feature: containsAny {GPUDevicePlugin, KubeletCredentialProviders, NodeLogQuery, NodeProblemDetector})";

impl Suite {
    /// The label expression of ginkgo that selects a stage of the suite.
    #[must_use]
    pub fn labels(self, stage: Stage) -> String {
        let suite = match self {
            Self::Node | Self::E2eNode => "NodeConformance".to_owned(),
            Self::Conformance | Self::Cri => "Conformance".to_owned(),
            Self::NodeFeatures => format!("!NodeConformance && !Conformance && {ELSEWHERE}"),
        };
        match stage {
            Stage::Parallel => format!("{suite} && !(Serial || Slow || Disruptive) && {OFF}"),
            Stage::Serial => format!("{suite} && (Serial || Slow || Disruptive) && {OFF}"),
            Stage::Machine => format!("{suite} && {OFF}"),
        }
    }

    /// Parts of names: tests that have one of them run in [`Stage::Machine`].
    #[must_use]
    pub fn on_a_machine(self) -> &'static [&'static str] {
        if self == Self::E2eNode { &ON_A_MACHINE } else { &[] }
    }

    /// The stages of all its tests. Virtual machines run our agent only.
    #[must_use]
    pub fn stages(self, against: Against) -> Vec<Stage> {
        let machine = self == Self::E2eNode && against.parts().1 == Part::Ours;
        let stages = [Stage::Parallel, Stage::Serial].into_iter();
        stages.chain(machine.then_some(Stage::Machine)).collect()
    }
}

impl Suite {
    /// What all names of its tests have in them, where labels do not tell.
    #[must_use]
    pub fn part_of_names(self) -> Option<&'static str> {
        (self == Self::NodeFeatures).then_some("[sig-node]")
    }
}

impl Against {
    /// Whose control plane and whose worker machines.
    #[must_use]
    pub fn parts(self) -> (Part, Part) {
        match self {
            Self::Ours => (Part::Ours, Part::Ours),
            Self::Stock => (Part::Stock, Part::Stock),
            Self::StockAgent => (Part::Stock, Part::Ours),
            Self::MasterKubelet => (Part::Ours, Part::Stock),
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Conformance => "conformance",
            Self::NodeFeatures => "node-features",
            Self::E2eNode => "e2e-node",
            Self::Cri => "cri",
        })
    }
}

impl FromStr for Suite {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ALL.into_iter().find(|suite| suite.to_string() == text).ok_or_else(|| {
            format!("no suite is called {text:?}: there are node, conformance, node-features, e2e-node and cri")
        })
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parallel => "parallel",
            Self::Serial => "serial",
            Self::Machine => "machine",
        })
    }
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Parallel, Self::Serial, Self::Machine]
            .into_iter()
            .find(|stage| stage.to_string() == text)
            .ok_or_else(|| format!("no stage is called {text:?}: there are parallel, serial and machine"))
    }
}

impl fmt::Display for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::Stock => "stock",
            Self::StockAgent => "stock+agent",
            Self::MasterKubelet => "master+kubelet",
        })
    }
}

impl FromStr for Against {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Ours, Self::Stock, Self::StockAgent, Self::MasterKubelet]
            .into_iter()
            .find(|against| against.to_string() == text)
            .ok_or_else(|| {
                format!("no kind of cluster is called {text:?}: there are ours, stock, stock+agent and master+kubelet")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for suite in ALL {
            assert_eq!(suite.to_string().parse(), Ok(suite));
        }
        for against in [Against::Ours, Against::Stock, Against::StockAgent, Against::MasterKubelet] {
            assert_eq!(against.to_string().parse(), Ok(against));
        }
        for stage in [Stage::Parallel, Stage::Serial, Stage::Machine] {
            assert_eq!(stage.to_string().parse(), Ok(stage));
        }
        assert!("nodes".parse::<Suite>().unwrap_err().contains("e2e-node"));
        assert!("theirs".parse::<Against>().unwrap_err().contains("stock+agent"));
    }

    #[test]
    fn what_restarts_a_kubelet_runs_on_a_machine_with_systemd() {
        let of = |name| Stage::of(Suite::E2eNode, name);
        assert_eq!(of("[sig-node] Pods [Slow] last"), Stage::Serial);
        assert_eq!(of("[sig-node] KubletTLS [Serial] [NodeConformance] certificate reload"), Stage::Machine);
        assert_eq!(of("[sig-node] StaticPod with a sidecar"), Stage::Parallel);
        assert_eq!(of("[sig-node] Summary API [NodeConformance] when querying /stats/summary"), Stage::Machine);
        assert_eq!(Stage::of(Suite::Node, "[sig-node] KubletTLS [Serial]"), Stage::Serial);
        assert_eq!(Suite::E2eNode.stages(Against::Ours).len(), 3);
        assert_eq!(Suite::E2eNode.stages(Against::MasterKubelet), [Stage::Parallel, Stage::Serial]);
        assert_eq!(Suite::Node.stages(Against::Ours), [Stage::Parallel, Stage::Serial]);
    }
}
