//! `host-local`: hands out addresses of configured ranges and remembers them in files, one for each address.

mod config;
mod store;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::{Code, Error, Result};
use crate::request::{Command, Request};
use crate::types::{IpConfig, Success};
use config::{Config, RangeSet};
use store::{Locked, Store};

/// Runs the command. Only ADD has a result.
pub fn run(request: &Request) -> Result<Option<Success>> {
    let config = Config::read(request)?;
    let store = Store::new(&config.data_dir, &request.network.name);
    match request.command {
        Command::Add => add(request, &config, &store).map(Some),
        Command::Del => {
            store.lock_existing()?.map_or(Ok(()), |locked| locked.release(&request.attachment)).map(|()| None)
        }
        Command::Check => check(request, &store).map(|()| None),
        Command::Status => store.lock().map(|_| None).map_err(|e| Error { code: Code::NotAvailable, ..e }),
        Command::Gc => {
            let valid = &request.network.valid_attachments;
            store.lock_existing()?.map_or(Ok(()), |locked| locked.retain(valid)).map(|()| None)
        }
    }
}

fn add(request: &Request, config: &Config, store: &Store) -> Result<Success> {
    if let Some(ip) = config.requested.iter().find(|ip| !config.ranges.iter().any(|set| set.contains(**ip))) {
        return Err(Error::config("ipam", format!("failed to allocate requested IP {ip}: not in any range")));
    }
    let locked = store.lock()?;
    // Before anything is taken, and so released: what the attachment has is in use.
    if locked.holds(&request.attachment)? {
        let message =
            format!("{} has an address already, duplicate allocation is not allowed", request.attachment.container);
        return Err(Error::config("ipam", message));
    }
    let mut result = Success { routes: config.routes.clone(), dns: config.dns()?, ..Success::default() };
    if let Err(error) = allocate(request, config, &locked, &mut result.ips) {
        // Nothing stays reserved of an ADD that failed. The first failure is the one to tell.
        let _ = locked.release(&request.attachment);
        return Err(error);
    }
    Ok(result)
}

fn allocate(request: &Request, config: &Config, locked: &Locked, ips: &mut Vec<IpConfig>) -> Result<()> {
    for (index, set) in config.ranges.iter().enumerate() {
        let (address, gateway) = match config.requested.iter().find(|ip| set.contains(**ip)) {
            Some(ip) => take_requested(request, locked, set, *ip)?,
            None => take_next(request, locked, set, index)?,
        };
        ips.push(IpConfig { version: None, interface: None, address, gateway: Some(gateway) });
    }
    Ok(())
}

fn take_requested(request: &Request, locked: &Locked, set: &RangeSet, ip: IpAddr) -> Result<(IpNet, IpAddr)> {
    let in_use =
        || Error::new(Code::Exhausted, format!("requested IP address {ip} is not available in range set {set}"));
    let found = set.describe(ip).ok_or_else(in_use)?;
    if found.1 == ip || !locked.reserve(ip, &request.attachment)? {
        return Err(in_use());
    }
    Ok(found)
}

fn take_next(request: &Request, locked: &Locked, set: &RangeSet, index: usize) -> Result<(IpNet, IpAddr)> {
    let last = locked.last_reserved(index);
    for (ip, address, gateway) in set.addresses_after(last) {
        if locked.reserve(ip, &request.attachment)? {
            locked.set_last_reserved(index, ip)?;
            return Ok((address, gateway));
        }
    }
    Err(Error::new(Code::Exhausted, format!("no IP addresses available in range set: {set}")))
}

fn check(request: &Request, store: &Store) -> Result<()> {
    let held = match store.lock_existing()? {
        Some(locked) => locked.holds(&request.attachment)?,
        None => false,
    };
    if held {
        return Ok(());
    }
    let message = format!("host-local: failed to find address added by container {}", request.attachment.container);
    Err(Error::new(Code::CheckFailed, message))
}
