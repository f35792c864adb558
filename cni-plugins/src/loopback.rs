//! `loopback`: sets the loopback link of a container up.

use ipnet::IpNet;
use netns::Netlink;

use crate::error::{Code, Error, Result};
use crate::request::{Command, Request};
use crate::types::{Interface, IpConfig, Success};

/// Runs the command. Only ADD has a result.
pub async fn run(request: &Request) -> Result<Option<Success>> {
    match request.command {
        Command::Add => add(request).await.map(Some),
        Command::Check => check(request).await.map(|()| None),
        // The link goes with its namespace; nothing else was made.
        Command::Del | Command::Status | Command::Gc => Ok(None),
    }
}

async fn add(request: &Request) -> Result<Success> {
    let netlink = Netlink::open_visiting(&request.open_netns()?)?;
    let link = netlink.require_link(&request.attachment.interface).await?;
    netlink.set_up(link.index).await?;
    // In a chain the plugin before has the say.
    if let Some(previous) = &request.network.prev_result {
        return Ok(previous.clone());
    }
    let addresses = netlink.addresses(link.index).await?;
    let ip = |address: IpNet| IpConfig { version: None, interface: Some(0), address, gateway: None };
    Ok(Success {
        interfaces: vec![Interface {
            name: link.name,
            mac: link.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            sandbox: request.netns.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            ..Interface::default()
        }],
        ips: addresses.into_iter().map(ip).collect(),
        ..Success::default()
    })
}

async fn check(request: &Request) -> Result<()> {
    let netlink = Netlink::open_visiting(&request.open_netns()?)?;
    let link = netlink.require_link(&request.attachment.interface).await?;
    if link.up {
        return Ok(());
    }
    Err(Error::new(Code::CheckFailed, format!("loopback interface {} is down", link.name)))
}
