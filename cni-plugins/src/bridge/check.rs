//! CHECK: what ADD made is still there.

use netns::{Link, LinkKind, Netlink};

use super::config::Config;
use crate::delegate;
use crate::error::{Code, Error, Result};
use crate::request::Request;
use crate::types::{Interface, Success};

/// Verifies the attachment against the result of its ADD.
pub async fn run(request: &Request, config: &Config) -> Result<()> {
    let expected = request.require_prev_result()?;
    if let Some(plugin) = delegate::ipam_type(request)? {
        delegate::ipam(request, plugin)?;
    }
    let inside = Netlink::open_visiting(&request.open_netns()?)?;
    let link = container_link(request, &inside, expected).await?;
    addresses_and_routes(&inside, &link, expected).await?;
    host_links(request, config, expected).await
}

fn failed(problem: String) -> Error {
    Error::new(Code::CheckFailed, problem)
}

async fn container_link(request: &Request, inside: &Netlink, expected: &Success) -> Result<Link> {
    let name = &request.attachment.interface;
    let interface = expected.container_interface(name);
    let interface =
        interface.ok_or_else(|| Error::config("prevResult.interfaces", format!("no {name} in a sandbox")))?;
    let sandbox = request.netns.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    if interface.sandbox != sandbox {
        let problem = format!("sandbox in prevResult {} doesn't match configured netns: {sandbox}", interface.sandbox);
        return Err(failed(problem));
    }
    let link = inside.link(name).await?.ok_or_else(|| failed(format!("interface {name} not found in {sandbox}")))?;
    same_mac(&link, interface)?;
    if link.kind != LinkKind::Veth {
        return Err(failed(format!("container interface {name} is not of type veth")));
    }
    Ok(link)
}

fn same_mac(link: &Link, interface: &Interface) -> Result<()> {
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if interface.mac.is_empty() || interface.mac.eq_ignore_ascii_case(&mac) {
        return Ok(());
    }
    Err(failed(format!("interface {} mac {} doesn't match expected {}", link.name, mac, interface.mac)))
}

async fn addresses_and_routes(inside: &Netlink, link: &Link, expected: &Success) -> Result<()> {
    let addresses = inside.addresses(link.index).await?;
    let own = |index: Option<usize>| index.and_then(|i| expected.interfaces.get(i)).is_none_or(|i| i.name == link.name);
    for ip in expected.ips.iter().filter(|ip| own(ip.interface)) {
        if !addresses.contains(&ip.address) {
            return Err(failed(format!("failed to match addr {} on interface {}", ip.address, link.name)));
        }
    }
    let routes = inside.all_routes().await?;
    for route in &expected.routes {
        let found =
            routes.iter().any(|is| is.destination == route.dst && (route.gw.is_none() || is.gateway == route.gw));
        if !found {
            return Err(failed(format!("expected route {} not found", route.dst)));
        }
    }
    Ok(())
}

async fn host_links(request: &Request, config: &Config, expected: &Success) -> Result<()> {
    let host = Netlink::open_current()?;
    let bridge = host.link(&config.bridge).await?;
    let bridge = bridge.filter(|link| link.kind == LinkKind::Bridge);
    let bridge = bridge.ok_or_else(|| failed(format!("bridge {} not found", config.bridge)))?;
    let name = request.attachment.host_link();
    let port = host.link(&name).await?.ok_or_else(|| failed(format!("host interface {name} not found")))?;
    if port.master != Some(bridge.index) {
        return Err(failed(format!("host interface {name} is not a port of {}", config.bridge)));
    }
    for (link, name) in [(&bridge, &config.bridge), (&port, &name)] {
        if let Some(interface) = expected.interfaces.iter().find(|i| i.sandbox.is_empty() && i.name == *name) {
            same_mac(link, interface)?;
        }
    }
    Ok(())
}
