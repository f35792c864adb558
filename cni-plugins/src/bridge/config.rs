//! The configuration of `bridge`, with the reference plugin's fields.

use netns::MacAddr;
use serde::Deserialize;
use serde_json::Value;

use crate::delegate;
use crate::error::{Error, Result};
use crate::request::Request;
use crate::types::decode;

const DEFAULT_BRIDGE: &str = "cni0";
/// The smallest MTU of a link that carries IPv4.
const MIN_MTU: u32 = 68;
const MAX_MTU: u32 = 65_535;

/// What is configured.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The bridge's name.
    #[serde(rename = "bridge")]
    pub bridge: String,
    /// Whether the bridge has the network's gateway address.
    pub is_gateway: bool,
    /// Whether containers have their default route there; implies `is_gateway`.
    pub is_default_gateway: bool,
    /// Whether another address of the bridge is replaced.
    pub force_address: bool,
    /// Whether what leaves the network is masqueraded.
    pub ip_masq: bool,
    /// Links' MTU in bytes; 0 for the kernel's default.
    pub mtu: u32,
    /// Whether frames may go back where they came from.
    pub hairpin_mode: bool,
    /// Whether the bridge receives frames for any address.
    pub promisc_mode: bool,
    vlan: u32,
    vlan_trunk: Vec<Value>,
    #[serde(rename = "macspoofchk")]
    mac_spoof_check: bool,
    disable_container_interface: bool,
    port_isolation: bool,
    mac: Option<String>,
    runtime_config: RuntimeConfig,
    /// The link-layer address that the container is to have.
    #[serde(skip)]
    pub container_mac: Option<MacAddr>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    mac: Option<String>,
}

impl Config {
    /// Reads and checks the configuration.
    pub fn read(request: &Request) -> Result<Self> {
        let mut config: Self = decode(&request.config, "")?;
        if config.bridge.is_empty() {
            DEFAULT_BRIDGE.clone_into(&mut config.bridge);
        }
        if config.bridge.len() > 15 || config.bridge.contains(['/', ' ']) {
            return Err(Error::config("bridge", format!("{:?} cannot be an interface name", config.bridge)));
        }
        if config.hairpin_mode && config.promisc_mode {
            return Err(Error::config("promiscMode", "cannot set hairpin mode and promiscuous mode at the same time"));
        }
        if config.mtu != 0 && !(MIN_MTU..=MAX_MTU).contains(&config.mtu) {
            return Err(Error::config("mtu", format!("{} is not between {MIN_MTU} and {MAX_MTU}", config.mtu)));
        }
        config.refuse_unsupported()?;
        config.is_gateway |= config.is_default_gateway;
        if config.is_gateway && delegate::ipam_type(request)?.is_none() {
            return Err(Error::config("isGateway", "needs ipam"));
        }
        let mac = config.runtime_config.mac.as_deref().or(config.mac.as_deref()).or(request.argument("MAC"));
        let mac = mac.filter(|text| !text.is_empty()).map(str::parse).transpose();
        config.container_mac = mac.map_err(|problem: String| Error::config("mac", problem))?;
        Ok(config)
    }

    fn refuse_unsupported(&self) -> Result<()> {
        let used = [
            ("vlan", self.vlan != 0),
            ("vlanTrunk", !self.vlan_trunk.is_empty()),
            ("macspoofchk", self.mac_spoof_check),
            ("disableContainerInterface", self.disable_container_interface),
            ("portIsolation", self.port_isolation),
        ];
        match used.iter().find(|(_, used)| *used) {
            Some((field, _)) => Err(Error::unsupported(field, "not implemented")),
            None => Ok(()),
        }
    }

    /// The MTU to set, if any.
    pub fn mtu(&self) -> Option<u32> {
        (self.mtu != 0).then_some(self.mtu)
    }
}
