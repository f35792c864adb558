//! The configuration of `portmap`.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::request::Request;
use crate::rules::PortMapping;
use crate::types::{Success, decode};

/// What is configured.
#[derive(Debug)]
pub struct Config {
    /// Whether clients are masqueraded where the answer would otherwise miss this host: from the container itself and
    /// from localhost.
    pub snat: bool,
    mappings: Vec<Mapping>,
}

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" | "" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "sctp" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// Its number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// A port that is forwarded.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// The port of the host.
    pub host_port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    container_port: u16,
    host_ip: Option<IpAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ConfigJson {
    snat: Option<bool>,
    masq_all: bool,
    backend: Option<String>,
    conditions_v4: Option<Vec<Value>>,
    conditions_v6: Option<Vec<Value>>,
    runtime_config: RuntimeJson,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeJson {
    port_mappings: Vec<MappingJson>,
}

/// containerd writes Go's field names (`HostPort`): the reference plugin's decoder does not mind the case.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MappingJson {
    #[serde(alias = "HostPort")]
    host_port: i64,
    #[serde(alias = "ContainerPort")]
    container_port: i64,
    #[serde(alias = "Protocol")]
    protocol: String,
    #[serde(rename = "hostIP", alias = "HostIP")]
    host_ip: String,
}

impl Config {
    /// Reads and checks the configuration.
    pub fn read(request: &Request) -> Result<Self> {
        let json: ConfigJson = decode(&request.config, "")?;
        let conditions = [("conditionsV4", &json.conditions_v4), ("conditionsV6", &json.conditions_v6)];
        if let Some((field, _)) = conditions.iter().find(|(_, value)| value.as_ref().is_some_and(|v| !v.is_empty())) {
            return Err(Error::unsupported(field, "not implemented"));
        }
        if json.masq_all {
            return Err(Error::unsupported("masqAll", "not implemented"));
        }
        if json.backend.as_deref().is_some_and(|backend| backend != "nftables") {
            return Err(Error::unsupported("backend", "only nftables is implemented"));
        }
        let mappings = json.runtime_config.port_mappings.iter().enumerate();
        let mappings = mappings.filter_map(|(i, mapping)| Mapping::read(i, mapping).transpose());
        Ok(Self { snat: json.snat.unwrap_or(true), mappings: mappings.collect::<Result<_>>()? })
    }

    /// The ports as they were asked for.
    pub fn port_mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// Each port with each of the container's addresses that it can lead to: the first one of each family.
    pub fn mappings(&self, result: &Success) -> Vec<PortMapping> {
        let in_container = |index: Option<usize>| {
            index.and_then(|i| result.interfaces.get(i)).is_none_or(|interface| !interface.sandbox.is_empty())
        };
        let addresses = || result.ips.iter().filter(|ip| in_container(ip.interface)).map(|ip| ip.address.addr());
        let targets: Vec<IpAddr> =
            addresses().find(IpAddr::is_ipv4).into_iter().chain(addresses().find(IpAddr::is_ipv6)).collect();
        let mut mappings = Vec::new();
        for mapping in &self.mappings {
            let suits = |ip: &&IpAddr| mapping.host_ip.is_none_or(|host| host.is_ipv4() == ip.is_ipv4());
            mappings.extend(targets.iter().filter(suits).map(|ip| PortMapping {
                // The unspecified address stands for all of its family.
                host_ip: mapping.host_ip.filter(|host| !host.is_unspecified()),
                protocol: mapping.protocol.number(),
                host_port: mapping.host_port,
                target: (*ip, mapping.container_port),
            }));
        }
        mappings
    }
}

impl Mapping {
    /// A mapping without a host port asks for nothing.
    fn read(index: usize, json: &MappingJson) -> Result<Option<Self>> {
        let field = |name: &str| format!("runtimeConfig.portMappings[{index}].{name}");
        let port = |name: &str, number: i64| {
            u16::try_from(number).map_err(|_| Error::config(&field(name), format!("invalid port number {number}")))
        };
        let host_port = port("hostPort", json.host_port)?;
        if host_port == 0 {
            return Ok(None);
        }
        let container_port = port("containerPort", json.container_port)?;
        if container_port == 0 {
            return Err(Error::config(&field("containerPort"), "invalid port number 0"));
        }
        let protocol = Protocol::parse(&json.protocol)
            .ok_or_else(|| Error::config(&field("protocol"), format!("unknown protocol {:?}", json.protocol)))?;
        let host_ip = Some(&json.host_ip).filter(|text| !text.is_empty()).map(|text| text.parse());
        let host_ip = host_ip
            .transpose()
            .map_err(|_| Error::config(&field("hostIP"), format!("{:?} is not an IP address", json.host_ip)))?;
        Ok(Some(Self { host_port, protocol, container_port, host_ip }))
    }
}
