//! What a plugin is asked: the environment and the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Code, Error, Result};
use crate::types::{Attachment, Success, Version, decode};

/// The longest interface name of Linux.
const MAX_INTERFACE_NAME: usize = 15;

/// A command to a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Connects a container.
    Add,
    /// Disconnects it.
    Del,
    /// Verifies the connection.
    Check,
    /// Says whether ADD would work.
    Status,
    /// Removes what belongs to no container any more.
    Gc,
}

/// The environment of a call.
#[derive(Debug, Clone, Default)]
pub struct Environment(pub BTreeMap<String, String>);

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        let text = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((key.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).filter(|(key, _)| key.starts_with("CNI_")).collect())
    }

    /// The variable `name`; an empty one counts as missing.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn require(&self, name: &str) -> Result<&str> {
        self.get(name)
            .ok_or_else(|| Error::new(Code::InvalidEnvironment, format!("required env variables [{name}] missing")))
    }
}

/// A call of a plugin, checked.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// The configuration as it came, for a delegate.
    pub config: Value,
    /// What all plugins read of it.
    pub network: Network,
    /// The version of the configuration and of the result.
    pub version: Version,
    /// Which container, by which link. Empty for STATUS and GC.
    pub attachment: Attachment,
    /// The path of the container's namespace. DEL can come without.
    pub netns: Option<PathBuf>,
    /// The environment, for a delegate.
    pub environment: Environment,
}

/// What all plugins read of the configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// The version.
    pub cni_version: String,
    /// The network's name.
    pub name: String,
    /// The result of the plugin before, or of ADD.
    pub prev_result: Option<Success>,
    /// For GC: the attachments that remain.
    #[serde(rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Vec<Attachment>,
}

impl Request {
    /// Reads a call. VERSION is not one: it needs no configuration.
    pub fn read(environment: Environment, config: Value) -> Result<Self> {
        let command = match environment.require("CNI_COMMAND")? {
            "ADD" => Command::Add,
            "DEL" => Command::Del,
            "CHECK" => Command::Check,
            "STATUS" => Command::Status,
            "GC" => Command::Gc,
            other => {
                return Err(Error::new(Code::InvalidEnvironment, format!("unknown CNI_COMMAND: {other}")));
            }
        };
        let network: Network = decode(&config, "")?;
        let version = Version::parse(if network.cni_version.is_empty() { "0.1.0" } else { &network.cni_version })?;
        check_version(command, version)?;
        if network.name.is_empty() {
            return Err(Error::config("name", "missing network name"));
        }
        // The name becomes part of a path.
        if !is_identifier(&network.name) {
            return Err(Error::config("name", format!("invalid characters in {:?}", network.name)));
        }
        let attachment = attachment(command, &environment)?;
        let netns = match command {
            Command::Add | Command::Check => Some(environment.require("CNI_NETNS")?.into()),
            _ => environment.get("CNI_NETNS").map(PathBuf::from),
        };
        Ok(Self { command, config, network, version, attachment, netns, environment })
    }

    /// The container's namespace, opened.
    pub fn open_netns(&self) -> Result<netns::NetNs> {
        let path = self.netns.as_deref().unwrap_or_else(|| std::path::Path::new(""));
        netns::NetNs::open(path).map_err(|e| {
            Error::because(Code::UnknownContainer, format!("failed to open netns {:?}", path.display()), &e)
        })
    }

    /// The result of ADD that CHECK verifies.
    pub fn require_prev_result(&self) -> Result<&Success> {
        let missing = || Error::config("prevResult", "required, but missing");
        self.network.prev_result.as_ref().ok_or_else(missing)
    }

    /// The value of `key` in CNI_ARGS (`K=V;K2=V2`).
    pub fn argument(&self, key: &str) -> Option<&str> {
        let arguments = self.environment.get("CNI_ARGS")?;
        arguments.split(';').filter_map(|pair| pair.split_once('=')).find(|(k, _)| *k == key).map(|(_, v)| v)
    }
}

fn check_version(command: Command, version: Version) -> Result<()> {
    let (since, name) = match command {
        Command::Check => (Version::CHECK, "CHECK"),
        Command::Gc => (Version::GC_AND_STATUS, "GC"),
        Command::Status => (Version::GC_AND_STATUS, "STATUS"),
        Command::Add | Command::Del => return Ok(()),
    };
    if version < since {
        let message = format!("config version {} does not allow {name}", version.name());
        return Err(Error::new(Code::IncompatibleVersion, message));
    }
    Ok(())
}

fn attachment(command: Command, environment: &Environment) -> Result<Attachment> {
    if matches!(command, Command::Status | Command::Gc) {
        return Ok(Attachment { container: String::new(), interface: String::new() });
    }
    let invalid = |text: String| Error::new(Code::InvalidEnvironment, text);
    let container = environment.require("CNI_CONTAINERID")?;
    if !is_identifier(container) {
        return Err(invalid(format!("invalid characters in CNI_CONTAINERID {container:?}")));
    }
    let interface = environment.require("CNI_IFNAME")?;
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if interface.len() > MAX_INTERFACE_NAME || [".", ".."].contains(&interface) || interface.contains(bad) {
        return Err(invalid(format!("invalid interface name in CNI_IFNAME {interface:?}")));
    }
    Ok(Attachment { container: container.to_owned(), interface: interface.to_owned() })
}

/// The specification's rule for container ids and network names.
fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}
