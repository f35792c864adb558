//! What is measured, and of whom.

use std::fmt;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::goals::{self, Goal};
use super::rows::{self, Row};

/// A part of the measurements that can be asked for alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    Node,
    Control,
    Proxy,
    Cni,
    /// Only on request.
    Flat,
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Stock,
    Ours,
}

impl Section {
    /// What is measured unless one is asked for.
    pub const USUAL: [Self; 4] = [Self::Node, Self::Control, Self::Proxy, Self::Cni];
    pub const ALL: [Self; 5] = [Self::Node, Self::Control, Self::Proxy, Self::Cni, Self::Flat];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Control => "control",
            Self::Proxy => "proxy",
            Self::Cni => "cni",
            Self::Flat => "flat",
        }
    }

    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Node => "The node: agent beside kubelet + kube-proxy + the reference CNI plugins",
            Self::Control => {
                "The control plane: master beside etcd + kube-apiserver + kube-controller-manager + kube-scheduler"
            }
            Self::Proxy => "Services: the agent's proxy beside kube-proxy (nftables mode)",
            Self::Cni => "CNI plugins: ours beside the reference plugins",
            Self::Flat => "Memory of the node over many pods that come and go",
        }
    }

    #[must_use]
    pub fn rows(self) -> Vec<Row> {
        match self {
            Self::Node => rows::node(),
            Self::Control => rows::control(),
            Self::Proxy => rows::proxy(),
            Self::Cni => rows::cni(),
            Self::Flat => rows::flat(),
        }
    }

    #[must_use]
    pub fn goals(self) -> &'static [Goal] {
        match self {
            Self::Node => goals::NODE,
            Self::Control => goals::CONTROL,
            Self::Proxy => goals::PROXY,
            Self::Cni => goals::CNI,
            Self::Flat => goals::FLAT,
        }
    }
}

impl std::str::FromStr for Section {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|s| s.name() == name).with_context(|| format!("{name:?} is none of {}", names()))
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stock => "stock",
            Self::Ours => "ours",
        })
    }
}

impl Side {
    /// What does a node's work beside the runtime.
    pub(super) fn node_parts(self) -> &'static [&'static str] {
        match self {
            Self::Stock => &["kubelet-n1", "kube-proxy-n1"],
            Self::Ours => &["agent-n1"],
        }
    }

    /// What does a control plane's work.
    pub(super) fn control_parts(self) -> &'static [&'static str] {
        match self {
            Self::Stock => &["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"],
            Self::Ours => &["master"],
        }
    }

    /// What makes Services work on a node.
    pub(super) fn proxy(self) -> &'static str {
        match self {
            Self::Stock => "kube-proxy-n1",
            Self::Ours => "agent-n1",
        }
    }
}
