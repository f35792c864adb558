//! ADD: everything is checked before the first change, and undone when a later one fails.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use netns::{Link, NetNs, Netlink, Route as KernelRoute, VethPair};

use super::config::Config;
use crate::delegate;
use crate::error::{Error, Result};
use crate::request::{Command, Request};
use crate::rules::Rules;
use crate::types::{Interface, IpConfig, Route, Success};

/// The container's place in the result's list of links: bridge, host's end, container's end.
const CONTAINER: usize = 2;
/// How often, and how many times, it is looked whether the bridge's port is open.
const LOOK: Duration = Duration::from_millis(1);
const LOOKS: usize = 50;

/// Connects the container.
pub async fn add(request: &Request, config: &Config) -> Result<Success> {
    let namespace = request.open_netns()?;
    if namespace.is_same(&NetNs::current()?)? {
        return Err(Error::config("CNI_NETNS", "is the namespace of the host"));
    }
    let plugin = delegate::ipam_type(request)?;
    let mut result = match plugin {
        Some(plugin) => delegate::ipam(request, plugin)?.unwrap_or_default(),
        None => Success::default(),
    };
    let connected = connect(request, config, &namespace, &mut result).await;
    if let Err(error) = connected {
        // The first failure is the one to tell; what cannot be undone now, DEL and GC will.
        undo(request, config, plugin).await;
        return Err(error);
    }
    Ok(result)
}

async fn undo(request: &Request, config: &Config, plugin: Option<&str>) {
    if let Ok(host) = Netlink::open_current() {
        let _ = host.delete_link(&request.attachment.host_link()).await;
    }
    if config.ip_masq
        && let Ok(rules) = Rules::open()
    {
        let _ = rules.remove(request).await;
    }
    if let Some(plugin) = plugin {
        let _ = delegate::ipam(&Request { command: Command::Del, ..request.clone() }, plugin);
    }
}

async fn connect(request: &Request, config: &Config, namespace: &NetNs, result: &mut Success) -> Result<()> {
    if delegate::ipam_type(request)?.is_some() && result.ips.is_empty() {
        return Err(Error::config("ipam", "IPAM plugin returned missing IP config"));
    }
    complete(config, result);
    let host = Netlink::open_current()?;
    let bridge = ensure_bridge(&host, config, &result.ips).await?;
    let name = request.attachment.host_link();
    let pair = VethPair {
        name: &name,
        peer_name: &request.attachment.interface,
        peer_namespace: namespace,
        peer_mac: config.container_mac,
        mtu: config.mtu(),
        master: Some(bridge.index),
    };
    host.create_veth(&pair).await?;
    let port = host.require_link(&name).await?;
    if config.hairpin_mode {
        host.set_hairpin(port.index, true).await?;
    }
    let inside = Netlink::open_visiting(namespace)?;
    let in_namespace = |key: &str, value: &str| namespace.visit(|| netns::sysctl::write_current(key, value))?;
    if result.ips.iter().any(|ip| ip.address.addr().is_ipv6()) {
        skip_duplicate_detection(&request.attachment.interface, in_namespace)?;
    }
    let link = configure_container(&inside, &request.attachment.interface, result).await?;
    if config.ip_masq {
        Rules::open()?.masquerade(request, &result.ips).await?;
    }
    await_forwarding(&host, &name).await?;
    announce(&inside, &link, in_namespace).await?;
    let sandbox = request.netns.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    result.interfaces = vec![interface(&bridge, ""), interface(&port, ""), interface(&link, &sandbox)];
    Ok(())
}

/// Fills in what the IPAM plugin leaves open: gateways, the default route, and which link addresses are on.
fn complete(config: &Config, result: &mut Success) {
    let mut defaults = Vec::new();
    for ip in &mut result.ips {
        ip.interface = Some(CONTAINER);
        if config.is_gateway && ip.gateway.is_none() {
            ip.gateway = ip.address.hosts().next();
        }
        let any = any_of(&ip.address);
        let has_default = result.routes.iter().chain(&defaults).any(|route| route.dst == any);
        if config.is_default_gateway && !has_default {
            defaults.push(Route { dst: any, gw: ip.gateway, mtu: None, priority: None, other: Default::default() });
        }
    }
    result.routes.extend(defaults);
}

/// `0.0.0.0/0` or `::/0`.
fn any_of(net: &IpNet) -> IpNet {
    match net {
        IpNet::V4(_) => ipnet::Ipv4Net::default().into(),
        IpNet::V6(_) => ipnet::Ipv6Net::default().into(),
    }
}

async fn ensure_bridge(host: &Netlink, config: &Config, ips: &[IpConfig]) -> Result<Link> {
    let existing = host.link(&config.bridge).await?;
    let bridge = host.ensure_bridge(&config.bridge, config.mtu()).await?;
    if !bridge.up {
        skip_duplicate_detection(&config.bridge, netns::sysctl::write_current)?;
        host.set_up(bridge.index).await?;
    }
    if let (None, Some(mac)) = (&existing, bridge.mac) {
        // A bridge whose address was never set takes the lowest one of its ports, which come and go.
        host.set_mac(bridge.index, mac).await?;
    }
    if config.promisc_mode {
        host.set_promiscuous(bridge.index, true).await?;
    }
    if config.is_gateway {
        ensure_gateway(host, config, &bridge, ips).await?;
    }
    Ok(bridge)
}

/// Lets the link-local address of a link that is still down be used at once. Until duplicate address detection is through,
/// which takes a second or two, the link could not even ask for a neighbour's link-layer address.
fn skip_duplicate_detection(link: &str, write: impl Fn(&str, &str) -> netns::Result<()>) -> Result<()> {
    match write(&format!("net/ipv6/conf/{link}/accept_dad"), "0") {
        // A kernel without IPv6.
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// The kernel opens a port a moment after the other end has gone up. One that stays shut is not this call's failure.
async fn await_forwarding(host: &Netlink, port: &str) -> Result<()> {
    for _ in 0..LOOKS {
        if host.require_link(port).await?.forwarding {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Tells where the link's addresses are now: another container may have had them before, and host and neighbours remember that one. The kernel
/// tells it whenever a link gets its link-layer address, be it the one that it has; when it goes up would be too early for the bridge.
async fn announce(inside: &Netlink, link: &Link, write: impl Fn(&str, &str) -> netns::Result<()>) -> Result<()> {
    let name = &link.name;
    for key in [format!("net/ipv4/conf/{name}/arp_notify"), format!("net/ipv6/conf/{name}/ndisc_notify")] {
        match write(&key, "1") {
            // A kernel without IPv6.
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    if let Some(mac) = link.mac {
        inside.set_mac(link.index, mac).await?;
    }
    Ok(())
}

/// Gives the bridge the networks' gateway addresses and lets the host route.
async fn ensure_gateway(host: &Netlink, config: &Config, bridge: &Link, ips: &[IpConfig]) -> Result<()> {
    let present = host.addresses(bridge.index).await?;
    for ip in ips {
        let Some(gateway) = ip.gateway.and_then(|ip_| IpNet::new(ip_, ip.address.prefix_len()).ok()) else { continue };
        if !present.contains(&gateway) {
            replace_address(host, config, bridge, &present, gateway).await?;
        }
        let key = match gateway {
            IpNet::V4(_) => "net/ipv4/ip_forward",
            IpNet::V6(_) => "net/ipv6/conf/all/forwarding",
        };
        netns::sysctl::write_current(key, "1")?;
    }
    Ok(())
}

async fn replace_address(
    host: &Netlink,
    config: &Config,
    bridge: &Link,
    present: &[IpNet],
    gateway: IpNet,
) -> Result<()> {
    // A bridge has one IPv4 network; IPv6 networks may stand beside each other where they do not overlap.
    let in_the_way = |net: &&IpNet| match (net, &gateway) {
        (IpNet::V4(_), IpNet::V4(_)) => true,
        (IpNet::V6(a), IpNet::V6(b)) => a.trunc() == b.trunc(),
        _ => false,
    };
    for other in present.iter().filter(in_the_way) {
        if !config.force_address {
            let problem = format!("{:?} already has an IP address different from {gateway}: {other}", config.bridge);
            return Err(Error::config("bridge", problem));
        }
        host.delete_address(bridge.index, *other).await?;
    }
    Ok(host.add_address(bridge.index, gateway).await?)
}

async fn configure_container(inside: &Netlink, name: &str, result: &Success) -> Result<Link> {
    let link = inside.require_link(name).await?;
    inside.set_up(link.index).await?;
    for ip in &result.ips {
        inside.add_address(link.index, ip.address).await?;
    }
    for route in &result.routes {
        let gateway = route.gw.or_else(|| gateway_of(&result.ips, route.dst));
        let route = KernelRoute {
            destination: route.dst,
            gateway,
            link: Some(link.index),
            source: None,
            mtu: route.mtu,
            priority: route.priority,
        };
        inside.replace_route(&route).await?;
    }
    Ok(link)
}

/// The gateway of the first address of the route's family.
fn gateway_of(ips: &[IpConfig], destination: IpNet) -> Option<IpAddr> {
    let is_v4 = destination.addr().is_ipv4();
    ips.iter().filter(|ip| ip.address.addr().is_ipv4() == is_v4).find_map(|ip| ip.gateway)
}

fn interface(link: &Link, sandbox: &str) -> Interface {
    Interface {
        name: link.name.clone(),
        mac: link.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        mtu: Some(link.mtu),
        sandbox: sandbox.to_owned(),
        ..Interface::default()
    }
}
