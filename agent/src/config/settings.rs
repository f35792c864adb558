//! `node.yaml`: what a `KubeletConfiguration` cannot say, because upstream has it as command line flags.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

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
    /// The address the node is reached at; detected from the route to the API server where unset.
    #[serde(default, rename = "nodeIP", skip_serializing_if = "Option::is_none")]
    pub node_ip: Option<IpAddr>,
    /// Labels that the node registers with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_labels: BTreeMap<String, String>,
    /// State that survives a reboot.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// State that does not.
    #[serde(default = "default_run_dir")]
    pub run_dir: PathBuf,
    /// Where containerd looks for CNI configuration.
    #[serde(default = "default_cni_conf_dir")]
    pub cni_conf_dir: PathBuf,
    /// Where containerd looks for CNI plugins.
    #[serde(default = "default_cni_bin_dir")]
    pub cni_bin_dir: PathBuf,
}

fn default_data_dir() -> PathBuf {
    "/var/lib/keelson".into()
}

fn default_run_dir() -> PathBuf {
    "/run/keelson".into()
}

/// Upstream's.
#[must_use]
pub fn default_cni_conf_dir() -> PathBuf {
    "/etc/cni/net.d".into()
}

/// Upstream's.
#[must_use]
pub fn default_cni_bin_dir() -> PathBuf {
    "/opt/cni/bin".into()
}
