//! `node.yaml`: what a `KubeletConfiguration` cannot say, because upstream has it as command line flags.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::client::Servers;

/// The settings of this one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSettings {
    /// The Node's name.
    pub node_name: String,
    /// The API server, `https://host:port`; several with commas in between, where any of them serves.
    pub server: Servers,
    /// The addresses the node is reached at; detected from the route to the API server where unset.
    #[serde(default, rename = "nodeIP", skip_serializing_if = "Option::is_none")]
    pub node_ip: Option<NodeIps>,
    /// Labels that the node registers with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_labels: BTreeMap<String, String>,
    /// State that survives a reboot.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// State that does not.
    #[serde(default = "default_run_dir")]
    pub run_dir: PathBuf,
    /// Where the runtime looks for CNI configuration; it is asked where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Likewise for CNI plugins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cni_bin_dir: Option<PathBuf>,
}

/// One address, or one of each family with a comma in between, as a kubelet's `--node-ip`. The first is what the node's pods in its network are
/// known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeIps(Vec<IpAddr>);

/// Why a text names no addresses of a node.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NodeIpsError {
    #[error("{0:?} is no IP address")]
    NotAnAddress(String),
    #[error("must contain either a single IP or a dual-stack pair of IPs")]
    NoPair,
    #[error("node IP cannot include '0.0.0.0' or '::'")]
    Unspecified,
}

impl NodeIps {
    /// All of them, the first one first.
    #[must_use]
    pub fn all(&self) -> &[IpAddr] {
        &self.0
    }
}

impl FromStr for NodeIps {
    type Err = NodeIpsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = |ip: &str| ip.trim().parse().map_err(|_| NodeIpsError::NotAnAddress(ip.trim().to_owned()));
        let ips = text.split(',').map(parse).collect::<Result<Vec<IpAddr>, _>>()?;
        if ips.iter().any(IpAddr::is_unspecified) {
            return Err(NodeIpsError::Unspecified);
        }
        match ips.as_slice() {
            [_] => Ok(Self(ips)),
            [one, other] if one.is_ipv4() != other.is_ipv4() => Ok(Self(ips)),
            _ => Err(NodeIpsError::NoPair),
        }
    }
}

impl TryFrom<String> for NodeIps {
    type Error = NodeIpsError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NodeIps> for String {
    fn from(ips: NodeIps) -> Self {
        ips.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

/// Ours.
#[must_use]
pub fn default_data_dir() -> PathBuf {
    "/var/lib/keelson".into()
}

/// Ours.
#[must_use]
pub fn default_run_dir() -> PathBuf {
    "/run/keelson".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_address_or_one_of_each_family() {
        for text in ["10.0.0.1", "fd00::1", "10.0.0.1,fd00::1", "fd00::1,10.0.0.1"] {
            assert_eq!(String::from(text.parse::<NodeIps>().unwrap()), text);
        }
        assert_eq!("10.0.0.1, fd00::1".parse::<NodeIps>().unwrap().all().len(), 2);
        let refused = |text: &str| text.parse::<NodeIps>().unwrap_err();
        for text in ["10.0.0.1,10.0.0.2", "10.0.0.1,fd00::1,fd00::2"] {
            assert_eq!(refused(text), NodeIpsError::NoPair);
        }
        assert_eq!(refused("10.0.0.1,::"), NodeIpsError::Unspecified);
        assert_eq!(refused("10.0.0.1,"), NodeIpsError::NotAnAddress(String::new()));
        assert_eq!(refused("n1"), NodeIpsError::NotAnAddress("n1".into()));
    }
}
