//! Hosts are network namespaces, each with one cable to a bridge.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::layout::{HostPaths, Layout};
use super::shell::run;

/// The LAN that the hosts share: 172.30.N.0/24. The machine itself is .1, the master .2, worker machine k is .(10+k).
#[derive(Debug, Clone, Copy)]
pub struct Lan(pub u8);

impl Lan {
    /// A LAN that no address of this machine and no other cluster uses.
    ///
    /// # Errors
    /// When addresses cannot be listed or all are taken.
    pub fn free() -> Result<Self> {
        let taken = run("ip", ["-4", "-o", "addr"])? + &run("ip", ["-4", "route"])?;
        let start = u8::try_from(std::process::id() % 200).unwrap_or(0);
        (0..=250u8)
            .map(|n| start.wrapping_add(n) % 251)
            .find(|n| !taken.contains(&format!("172.30.{n}.")))
            .map(Self)
            .context("every network from 172.30.0.0/24 to 172.30.250.0/24 is taken")
    }

    #[must_use]
    pub fn address(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.0, last)
    }

    #[must_use]
    pub fn master(self) -> Ipv4Addr {
        self.address(2)
    }

    #[must_use]
    pub fn worker(self, number: u8) -> Ipv4Addr {
        self.address(10 + number)
    }
}

/// Makes the bridge.
///
/// # Errors
/// When a step fails; what was made stays for `down`.
pub fn make_bridge(layout: &Layout, lan: Lan) -> Result<()> {
    let bridge = layout.bridge();
    run("ip", ["link", "add", &bridge, "type", "bridge"])?;
    run("ip", ["addr", "add", &format!("{}/24", lan.address(1)), "dev", &bridge])?;
    run("ip", ["link", "set", &bridge, "up"])?;
    Ok(())
}

/// Makes a host and plugs it in.
///
/// # Errors
/// When a step fails; what was made stays for `down`.
pub fn make_host(layout: &Layout, host: &HostPaths, lan: Lan, address: Ipv4Addr) -> Result<()> {
    let (netns, port) = (host.netns(), host.port());
    run("ip", ["netns", "add", &netns])?;
    run("ip", ["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &netns])?;
    run("ip", ["link", "set", &port, "master", &layout.bridge(), "up"])?;
    run("ip", ["-n", &netns, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
    run("ip", ["-n", &netns, "link", "set", "eth0", "up"])?;
    run("ip", ["-n", &netns, "link", "set", "lo", "up"])?;
    run("ip", ["-n", &netns, "route", "add", "default", "via", &lan.address(1).to_string()])?;
    Ok(())
}

/// A command that runs in the host's network.
#[must_use]
pub fn inside(host: &HostPaths, program: &Path) -> Command {
    enter(&host.netns_path(), program)
}

/// A command that runs in a network namespace. Unlike `ip netns exec` this leaves /sys, and with it cgroups, as they are.
#[must_use]
pub fn enter(netns: &Path, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.display())).arg(program);
    command
}

/// Removes hosts and bridge, whether or not all of them are there.
///
/// # Errors
/// When something that is there does not go.
pub fn remove(layout: &Layout) -> Result<()> {
    let mut failed = Vec::new();
    // Cables first: a namespace takes its own along only some time after it is gone.
    for link in links(layout)? {
        failed.extend(run("ip", ["link", "del", &link]).err());
    }
    for netns in namespaces(layout)? {
        failed.extend(run("ip", ["netns", "del", &netns]).err());
    }
    if Path::new("/sys/class/net").join(layout.bridge()).exists() {
        failed.extend(run("ip", ["link", "del", &layout.bridge()]).err());
    }
    match failed.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The ends of its hosts' cables that sit on the bridge.
fn links(layout: &Layout) -> Result<Vec<String>> {
    let prefix = format!("{}-", layout.prefix());
    let names = std::fs::read_dir("/sys/class/net")?.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|n| n.starts_with(&prefix)).collect())
}

/// The namespaces of this cluster that exist.
///
/// # Errors
/// When they cannot be listed.
pub fn namespaces(layout: &Layout) -> Result<Vec<String>> {
    let prefix = format!("{}-", layout.prefix());
    let dir = match std::fs::read_dir("/run/netns") {
        Ok(dir) => dir,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => bail!("list /run/netns: {error}"),
    };
    Ok(dir.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| n.starts_with(&prefix)).collect())
}
