//! `portmap`: forwards ports of the host to a container. It follows another plugin in a chain.

mod config;

use netns::NetNs;
use netns::conntrack::{Conntrack, Flows as _};

use crate::error::{Error, Result};
use crate::request::{Command, Request};
use crate::rules::Rules;
use crate::types::Success;
use config::{Config, Protocol};

/// Runs the command. Only ADD has a result.
pub async fn run(request: &Request) -> Result<Option<Success>> {
    let config = Config::read(request)?;
    match request.command {
        Command::Add => add(request, &config).await.map(Some),
        Command::Del => {
            Rules::open()?.remove(request).await?;
            forget_udp(&config).await.map(|()| None)
        }
        Command::Check => {
            let mappings = config.mappings(request.require_prev_result()?);
            Rules::open()?.check_ports(request, &mappings).await.map(|()| None)
        }
        Command::Status => Ok(None),
        Command::Gc => Rules::open()?.retain(request).await.map(|()| None),
    }
}

async fn add(request: &Request, config: &Config) -> Result<Success> {
    let previous = request.network.prev_result.clone();
    let previous = previous.ok_or_else(|| Error::config("prevResult", "must be called as chained plugin"))?;
    let mappings = config.mappings(&previous);
    if mappings.is_empty() {
        return Ok(previous);
    }
    Rules::open()?.map_ports(request, &mappings, config.snat).await?;
    // After the rules, which close localhost again to the containers themselves.
    let localhost = if config.snat { allow_localhost(&previous) } else { Ok(()) };
    let done = match localhost {
        Ok(()) => forget_udp(config).await,
        refused => refused,
    };
    if let Err(error) = done {
        let _ = Rules::open()?.remove(request).await;
        return Err(error);
    }
    Ok(previous)
}

/// Lets packets from 127.0.0.0/8 leave by the bridge, so that the host's own localhost:PORT is forwarded too.
fn allow_localhost(previous: &Success) -> Result<()> {
    let has_v4 = previous.ips.iter().any(|ip| ip.address.addr().is_ipv4());
    let bridge = previous.interfaces.iter().find(|interface| interface.sandbox.is_empty());
    match bridge.filter(|_| has_v4) {
        Some(bridge) => {
            let key = format!("net/ipv4/conf/{}/route_localnet", bridge.name.replace('.', "/"));
            match netns::sysctl::write_current(&key, "1") {
                // The plugin before may name a link that is not the host's.
                Err(error) if !error.is_not_found() => Err(error.into()),
                _ => Ok(()),
            }
        }
        None => Ok(()),
    }
}

/// A UDP client's connection tracking entry leads where the port led before.
async fn forget_udp(config: &Config) -> Result<()> {
    let ports: Vec<u16> =
        config.port_mappings().iter().filter(|m| m.protocol == Protocol::Udp).map(|m| m.host_port).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let conntrack = Conntrack::open(&NetNs::current()?)?;
    conntrack.delete_udp(|flow| ports.contains(&flow.original.1)).await?.all()?;
    Ok(())
}
