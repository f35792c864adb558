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
    /// `[NodeConformance]` of test/e2e_node, against one node.
    E2eNode,
    /// critest, against `cri::fake`.
    Cri,
}

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
}

/// What has to run alone, or takes many minutes, by the tags in its name.
const ALONE: [&str; 3] = ["[Serial]", "[Disruptive]", "[Slow]"];

impl Stage {
    /// The stage that a test runs in.
    #[must_use]
    pub fn of(name: &str) -> Self {
        if ALONE.iter().any(|tag| name.contains(tag)) { Self::Serial } else { Self::Parallel }
    }
}

/// Features that are off unless an administrator turns them on: their tests are no part of conformance.
const OFF: &str = "!(Feature: containsAny OffByDefault) && !(BetaOffByDefault)";

impl Suite {
    /// The label expression of ginkgo that selects a stage of the suite.
    #[must_use]
    pub fn labels(self, stage: Stage) -> String {
        let suite = match self {
            Self::Node | Self::E2eNode => "NodeConformance",
            Self::Conformance | Self::Cri => "Conformance",
        };
        match stage {
            Stage::Parallel => format!("{suite} && !(Serial || Slow || Disruptive) && {OFF}"),
            Stage::Serial => format!("{suite} && (Serial || Slow || Disruptive) && {OFF}"),
        }
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
            Self::E2eNode => "e2e-node",
            Self::Cri => "cri",
        })
    }
}

impl FromStr for Suite {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Node, Self::Conformance, Self::E2eNode, Self::Cri]
            .into_iter()
            .find(|suite| suite.to_string() == text)
            .ok_or_else(|| format!("no suite is called {text:?}: there are node, conformance, e2e-node and cri"))
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parallel => "parallel",
            Self::Serial => "serial",
        })
    }
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Parallel, Self::Serial]
            .into_iter()
            .find(|stage| stage.to_string() == text)
            .ok_or_else(|| format!("no stage is called {text:?}: there are parallel and serial"))
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
        for suite in [Suite::Node, Suite::Conformance, Suite::E2eNode, Suite::Cri] {
            assert_eq!(suite.to_string().parse(), Ok(suite));
        }
        for against in [Against::Ours, Against::Stock, Against::StockAgent, Against::MasterKubelet] {
            assert_eq!(against.to_string().parse(), Ok(against));
        }
        for stage in [Stage::Parallel, Stage::Serial] {
            assert_eq!(stage.to_string().parse(), Ok(stage));
        }
        assert_eq!(Stage::of("[sig-node] Pods [Slow] last"), Stage::Serial);
        assert!("nodes".parse::<Suite>().unwrap_err().contains("e2e-node"));
        assert!("theirs".parse::<Against>().unwrap_err().contains("stock+agent"));
    }
}
