//! Routes and neighbours.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::libc::{
    AF_INET6, NDA_DST, NDA_LLADDR, NUD_PERMANENT, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE, RT_TABLE_MAIN, RTA_DST,
    RTA_GATEWAY, RTA_METRICS, RTA_OIF, RTA_PREFSRC, RTA_PRIORITY, RTM_DELROUTE, RTM_GETROUTE, RTM_NEWNEIGH,
    RTM_NEWROUTE, RTN_UNICAST,
};
use nlink::netlink::MessageBuilder;
use nlink::netlink::message::{NLM_F_CREATE, NLM_F_REPLACE};
use nlink::netlink::types::neigh::NdMsg;
use nlink::netlink::types::route::RtMsg;

use crate::attributes::{append_ip, attributes, family, ip, number};
use crate::{Error, MacAddr, Netlink, ROUTE_PROTOCOL, Result};

/// linux/rtnetlink.h: the metric of a route that is its MTU.
const RTAX_MTU: u16 = 2;

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
        let replaced = self.change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, |request| append_route(request, route));
        replaced.await.map_err(|e| Error::netlink("replace route to", route.destination, e))
    }

    /// Removes Keelson's route to the same destination; one that is gone is no error.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn delete_route(&self, route: &Route) -> Result<()> {
        let deleted = self.change(RTM_DELROUTE, 0, |request| append_route(request, route));
        match deleted.await.map_err(|e| Error::netlink("delete route to", route.destination, e)) {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }

    /// The main table's unicast routes of one protocol number, both families.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn routes(&self, protocol: u8) -> Result<Vec<Route>> {
        self.list_routes(|header| header.rtm_protocol == protocol).await
    }

    /// The main table's unicast routes of every protocol, both families.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn all_routes(&self) -> Result<Vec<Route>> {
        self.list_routes(|_| true).await
    }

    async fn list_routes(&self, wanted: impl Fn(&RtMsg) -> bool + Sync) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for unspecified in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
            let header = RtMsg::new().with_family(family(unspecified));
            let read = |message: &[u8]| {
                let header = RtMsg::from_bytes(message).ok()?;
                wanted(header).then(|| parse_route(header, message)).flatten()
            };
            let listed = self.list(RTM_GETROUTE, header.as_bytes(), read).await;
            routes.extend(listed.map_err(|e| Error::netlink("list routes", "", e))?);
        }
        Ok(routes)
    }

    /// Adds a permanent neighbour entry, or replaces the one for the same address.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn replace_neighbour(&self, neighbour: &Neighbour) -> Result<()> {
        let replaced = self.change(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, |request| {
            let header = NdMsg::new().with_family(family(neighbour.address)).with_state(NUD_PERMANENT);
            request.append(&header.with_ifindex(neighbour.link.cast_signed()));
            append_ip(request, NDA_DST, neighbour.address);
            request.append_attr(NDA_LLADDR, &neighbour.mac.0);
        });
        replaced.await.map_err(|e| Error::netlink("replace neighbour", neighbour.address, e))
    }
}

/// `route` as one of Keelson's own.
fn append_route(request: &mut MessageBuilder, route: &Route) {
    let scope = if route.gateway.is_some() { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
    let destination = route.destination.trunc();
    let header = RtMsg::new().with_family(family(destination.addr())).with_dst_len(destination.prefix_len());
    let header = header.with_table(RT_TABLE_MAIN).with_protocol(ROUTE_PROTOCOL);
    request.append(&header.with_scope(scope).with_type(RTN_UNICAST));
    append_ip(request, RTA_DST, destination.addr());
    for (kind, address) in [(RTA_GATEWAY, route.gateway), (RTA_PREFSRC, route.source)] {
        if let Some(address) = address {
            append_ip(request, kind, address);
        }
    }
    for (kind, value) in [(RTA_OIF, route.link), (RTA_PRIORITY, route.priority)] {
        if let Some(value) = value {
            request.append_attr_u32(kind, value);
        }
    }
    if let Some(mtu) = route.mtu {
        let metrics = request.nest_start(RTA_METRICS);
        request.append_attr_u32(RTAX_MTU, mtu);
        request.nest_end(metrics);
    }
}

fn parse_route(header: &RtMsg, message: &[u8]) -> Option<Route> {
    if header.rtm_table != RT_TABLE_MAIN || header.rtm_type != RTN_UNICAST {
        return None;
    }
    // The default route has no destination.
    let mut destination: IpAddr = match i32::from(header.rtm_family) {
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let (mut gateway, mut link, mut source, mut mtu, mut priority) = (None, None, None, None, None);
    for (kind, value) in attributes(message, RtMsg::SIZE) {
        match kind {
            RTA_DST => destination = ip(value)?,
            RTA_GATEWAY => gateway = ip(value),
            RTA_PREFSRC => source = ip(value),
            RTA_OIF => link = number(value),
            RTA_PRIORITY => priority = number(value),
            RTA_METRICS => {
                mtu = attributes(value, 0).find(|(kind, _)| *kind == RTAX_MTU).and_then(|(_, mtu)| number(mtu))
            }
            _ => {}
        }
    }
    let destination = IpNet::new(destination, header.rtm_dst_len).ok()?;
    Some(Route { destination, gateway, link, source, mtu, priority })
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
