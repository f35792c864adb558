//! Routes and neighbours.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{IpVersion, RouteMessageBuilder};

use crate::{Error, MacAddr, Netlink, ROUTE_PROTOCOL, Result};

/// A unicast route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to; `0.0.0.0/0` or `::/0` is the default route.
    pub destination: IpNet,
    /// The next hop; directly on the link without one.
    pub gateway: Option<IpAddr>,
    /// The interface index; the kernel finds it by the gateway without one.
    pub link: Option<u32>,
    /// The source address that the host itself prefers on this route.
    pub source: Option<IpAddr>,
    /// The largest packet on this route, in bytes.
    pub mtu: Option<u32>,
    /// `RTA_PRIORITY`: the route with the lowest one wins.
    pub priority: Option<u32>,
}

impl Route {
    /// A route to `destination` by way of `gateway`.
    pub fn via(destination: IpNet, gateway: IpAddr) -> Self {
        let destination = destination.trunc();
        Self { destination, gateway: Some(gateway), link: None, source: None, mtu: None, priority: None }
    }

    /// A route to `destination` that is directly on the link.
    pub fn on_link(destination: IpNet, link: u32) -> Self {
        let destination = destination.trunc();
        Self { destination, gateway: None, link: Some(link), source: None, mtu: None, priority: None }
    }
}

/// What [`Netlink::sync_routes`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteSync {
    /// Routes that were added or changed.
    pub replaced: usize,
    /// Routes that were removed.
    pub deleted: usize,
}

/// A permanent neighbour entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface index.
    pub link: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// The neighbour's link-layer address.
    pub mac: MacAddr,
}

impl Netlink {
    /// Makes Keelson's own routes (those of [`ROUTE_PROTOCOL`]) be exactly `desired`. Other routes are not touched.
    /// Added before removed, so that a changed route is never missing.
    ///
    /// # Errors
    /// The first refusal, after everything else was tried: one bad route does not keep the others away.
    pub async fn sync_routes(&self, desired: &[Route]) -> Result<RouteSync> {
        let present = self.routes(ROUTE_PROTOCOL).await?;
        let mut done = RouteSync::default();
        let mut failure = None;
        for route in desired.iter().filter(|route| !present.iter().any(|is| satisfies(is, route))) {
            match self.replace_route(route).await {
                Ok(()) => done.replaced += 1,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let wanted: BTreeSet<IpNet> = desired.iter().map(|route| route.destination.trunc()).collect();
        for route in present.iter().filter(|route| !wanted.contains(&route.destination)) {
            match self.delete_route(route).await {
                Ok(()) => done.deleted += 1,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(done), Err)
    }

    /// Adds `route` under Keelson's protocol number, or replaces the one to the same destination.
    ///
    /// # Errors
    /// The kernel's refusal (ENETUNREACH: the gateway is not on a link of ours).
    pub async fn replace_route(&self, route: &Route) -> Result<()> {
        let message = route_message(route, RouteProtocol::Other(ROUTE_PROTOCOL));
        let replaced = self.handle.route().add(message).replace().execute().await;
        replaced.map_err(|e| Error::rtnetlink("replace route to", route.destination, e))
    }

    /// Removes Keelson's route to the same destination; one that is gone is no error.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn delete_route(&self, route: &Route) -> Result<()> {
        let message = route_message(route, RouteProtocol::Other(ROUTE_PROTOCOL));
        let deleted = self.handle.route().del(message).execute().await;
        match deleted.map_err(|e| Error::rtnetlink("delete route to", route.destination, e)) {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }

    /// The main table's unicast routes of one protocol number, both families.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn routes(&self, protocol: u8) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            routes.extend(self.route_messages(version).await?.iter().filter_map(|message| {
                (u8::from(message.header.protocol) == protocol).then(|| parse_route(message)).flatten()
            }));
        }
        Ok(routes)
    }

    /// The main table's unicast routes of every protocol, both families.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn all_routes(&self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            routes.extend(self.route_messages(version).await?.iter().filter_map(parse_route));
        }
        Ok(routes)
    }

    async fn route_messages(&self, version: IpVersion) -> Result<Vec<RouteMessage>> {
        let message = match version {
            IpVersion::V4 => RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            IpVersion::V6 => RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        };
        let messages = self.handle.route().get(message).execute().try_collect().await;
        messages.map_err(|e| Error::rtnetlink("list routes", "", e))
    }

    /// Adds a permanent neighbour entry, or replaces the one for the same address.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn replace_neighbour(&self, neighbour: &Neighbour) -> Result<()> {
        let request = self.handle.neighbours().add(neighbour.link, neighbour.address);
        let request = request.link_layer_address(&neighbour.mac.0).replace();
        request.execute().await.map_err(|e| Error::rtnetlink("replace neighbour", neighbour.address, e))
    }
}

fn route_message(route: &Route, protocol: RouteProtocol) -> RouteMessage {
    let mut message = match route.destination {
        IpNet::V4(net) => {
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(net.network(), net.prefix_len()).build()
        }
        IpNet::V6(net) => {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(net.network(), net.prefix_len()).build()
        }
    };
    message.header.protocol = protocol;
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    };
    if let Some(gateway) = route.gateway {
        message.attributes.push(RouteAttribute::Gateway(address(gateway)));
    } else {
        message.header.scope = RouteScope::Link;
    }
    if let Some(source) = route.source {
        message.attributes.push(RouteAttribute::PrefSource(address(source)));
    }
    message.attributes.extend(route.link.map(RouteAttribute::Oif));
    message.attributes.extend(route.priority.map(RouteAttribute::Priority));
    if let Some(mtu) = route.mtu {
        message.attributes.push(RouteAttribute::Metrics(vec![rtnetlink::packet_route::route::RouteMetric::Mtu(mtu)]));
    }
    message
}

fn parse_route(message: &RouteMessage) -> Option<Route> {
    // 254 is RT_TABLE_MAIN.
    if message.header.table != 254 || message.header.kind != RouteType::Unicast {
        return None;
    }
    let unspecified: IpAddr = if message.header.address_family == rtnetlink::packet_route::AddressFamily::Inet6 {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    };
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip_of(address),
        _ => None,
    });
    let destination = IpNet::new(destination.unwrap_or(unspecified), message.header.destination_prefix_length).ok()?;
    let mut route = Route { destination, gateway: None, link: None, source: None, mtu: None, priority: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => route.gateway = ip_of(address),
            RouteAttribute::PrefSource(address) => route.source = ip_of(address),
            RouteAttribute::Oif(index) => route.link = Some(*index),
            RouteAttribute::Priority(priority) => route.priority = Some(*priority),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    rtnetlink::packet_route::route::RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(route)
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// Whether the kernel's route `is` does what `wanted` asks for. What is not asked for may have any value: the kernel
/// fills in the link and, for IPv6, a priority.
fn satisfies(is: &Route, wanted: &Route) -> bool {
    fn agrees<T: PartialEq>(is: &Option<T>, wanted: &Option<T>) -> bool {
        wanted.is_none() || is == wanted
    }
    is.destination == wanted.destination.trunc()
        && is.gateway == wanted.gateway
        && agrees(&is.link, &wanted.link)
        && agrees(&is.source, &wanted.source)
        && is.mtu == wanted.mtu
        && agrees(&is.priority, &wanted.priority)
}
