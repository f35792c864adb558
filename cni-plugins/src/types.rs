//! The values of the CNI specification: versions, results, attachments, and decoding with errors that name the field.

use std::net::IpAddr;

use ipnet::IpNet;
use netns::fnv1a;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};

/// The versions that are spoken, oldest first.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A version of the specification that is spoken. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(usize);

impl Version {
    /// Since when there is CHECK.
    pub const CHECK: Self = Self(2);
    /// Since when an address does not say its version.
    pub const UNVERSIONED_IPS: Self = Self(3);
    /// Since when there are GC and STATUS.
    pub const GC_AND_STATUS: Self = Self(4);

    /// The version called `text`.
    pub fn parse(text: &str) -> Result<Self> {
        VERSIONS.iter().position(|version| *version == text).map(Self).ok_or_else(|| {
            let supported = VERSIONS.join(", ");
            Error::new(
                Code::IncompatibleVersion,
                format!("incompatible CNI versions: config is {text:?}, plugin supports {supported}"),
            )
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        VERSIONS.get(self.0).copied().unwrap_or_default()
    }
}

/// The result of ADD, in the shape of the latest version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Success {
    /// The version; set when it is printed.
    pub cni_version: String,
    /// The links that were made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// The container's addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpConfig>,
    /// The container's routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// The container's resolver, passed on as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Value>,
}

/// A link of a [`Success`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its link-layer address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The path of its namespace; empty on the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// Whatever else an earlier plugin said of it.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An address of a [`Success`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// `4` or `6`, until version 0.4.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The index of its link in [`Success::interfaces`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
    /// The address with its network's length.
    pub address: IpNet,
    /// The gateway of its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A route of a [`Success`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub dst: IpNet,
    /// The next hop; the gateway of the network when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// The largest packet in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The route's metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Whatever else was said of it.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Success {
    /// The result as JSON of `version`.
    pub fn into_json(mut self, version: Version) -> Result<String> {
        version.name().clone_into(&mut self.cni_version);
        for ip in &mut self.ips {
            let number = if ip.address.addr().is_ipv4() { "4" } else { "6" };
            ip.version = (version < Version::UNVERSIONED_IPS).then(|| number.to_owned());
        }
        if version < Version::GC_AND_STATUS {
            self.interfaces.iter_mut().for_each(|interface| interface.mtu = None);
            for route in &mut self.routes {
                *route = Route { dst: route.dst, gw: route.gw, mtu: None, priority: None, other: Map::new() };
            }
        }
        serde_json::to_string(&self).map_err(|e| Error::because(Code::Decode, "encode result", &e))
    }

    /// The link of this name in a container.
    pub fn container_interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| !interface.sandbox.is_empty() && interface.name == name)
    }
}

/// One container's connection to a network, as GC names those that remain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Attachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container: String,
    /// The link's name inside of it.
    #[serde(rename = "ifname")]
    pub interface: String,
}

impl Attachment {
    /// The name of the host's end of the veth pair: the same for every call, so that DEL finds it without the
    /// container's namespace. 15 bytes, the most there are.
    pub fn host_link(&self) -> String {
        let hash = fnv1a(format!("{}/{}", self.container, self.interface).as_bytes());
        format!("veth{:011x}", hash & 0xfff_ffff_ffff)
    }
}

/// Decodes `value`, all of whose fields have defaults. The error names the field, below `path`.
pub fn decode<T: DeserializeOwned>(value: &Value, path: &str) -> Result<T> {
    let error = match T::deserialize(value) {
        Ok(decoded) => return Ok(decoded),
        Err(error) => error,
    };
    // serde_json does not say which field it was: the one that fails alone.
    let culprit = value.as_object().into_iter().flatten().find(|(name, field)| {
        let alone: Map<String, Value> = [((*name).clone(), (*field).clone())].into_iter().collect();
        T::deserialize(&Value::Object(alone)).is_err()
    });
    let field = match culprit {
        Some((name, _)) => format!("{path}{name}"),
        None => path.trim_end_matches('.').to_owned(),
    };
    Err(Error::new(Code::Decode, format!("failed to decode network configuration: {field}: {error}")))
}
