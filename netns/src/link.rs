//! Links and their addresses.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::str::FromStr;

use ipnet::IpNet;
use nix::libc::{
    IFA_ADDRESS, IFA_BROADCAST, IFA_F_NODAD, IFA_FLAGS, IFA_LOCAL, IFF_PROMISC, IFF_UP, IFLA_ADDRESS, IFLA_IFNAME,
    IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_INFO_SLAVE_DATA, IFLA_INFO_SLAVE_KIND, IFLA_LINK, IFLA_LINKINFO, IFLA_MASTER,
    IFLA_MTU, IFLA_NET_NS_FD, RTM_DELADDR, RTM_DELLINK, RTM_GETADDR, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK,
};
use nlink::netlink::MessageBuilder;
use nlink::netlink::message::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use nlink::netlink::types::addr::IfAddrMsg;
use nlink::netlink::types::link::IfInfoMsg;
use nlink::netlink::types::link::brport::{IFLA_BRPORT_MODE, IFLA_BRPORT_STATE};

use crate::attributes::{append_ip, attributes, family, ip, number, text};
use crate::{Error, NetNs, Netlink, Result};

/// linux/veth.h: the attribute that describes the other end.
const VETH_INFO_PEER: u16 = 1;
/// linux/if_bridge.h: the state of a port that lets packets through.
const BR_STATE_FORWARDING: u8 = 3;

/// A link-layer address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let bytes: Option<Vec<u8>> = text.split([':', '-']).map(|part| u8::from_str_radix(part, 16).ok()).collect();
        bytes
            .and_then(|bytes| <[u8; 6]>::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a MAC address"))
    }
}

/// What a link is, as far as this crate tells links apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// One end of a veth pair.
    Veth,
    /// Anything else.
    Other,
}

/// A link as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The interface index, unique in the namespace.
    pub index: u32,
    /// The interface name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Its link-layer address, when it has one of Ethernet's length.
    pub mac: Option<MacAddr>,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// For a veth: the index of the other end, in that end's namespace.
    pub peer: Option<u32>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is a bridge's port that lets packets through: not at once when it has a carrier.
    pub forwarding: bool,
}

/// A veth pair to create: one end here, the other straight in another namespace.
#[derive(Debug)]
pub struct VethPair<'a> {
    /// The name of the end in this conversation's namespace.
    pub name: &'a str,
    /// The name of the other end.
    pub peer_name: &'a str,
    /// Where the other end is created.
    pub peer_namespace: &'a NetNs,
    /// The other end's link-layer address; the kernel picks one otherwise.
    pub peer_mac: Option<MacAddr>,
    /// Both ends' MTU in bytes; the kernel's default otherwise.
    pub mtu: Option<u32>,
    /// The bridge that this end becomes a port of.
    pub master: Option<u32>,
}

impl Netlink {
    /// The link called `name`, if there is one.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        self.get_link(0, Some(name)).await
    }

    /// The link with index `index`, if there is one.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<Link>> {
        self.get_link(index, None).await
    }

    async fn get_link(&self, index: u32, name: Option<&str>) -> Result<Option<Link>> {
        let fill = |request: &mut MessageBuilder| {
            request.append(&header(index));
            if let Some(name) = name {
                request.append_attr_str(IFLA_IFNAME, name);
            }
        };
        let subject = || name.map_or_else(|| index.to_string(), str::to_owned);
        match self.get(RTM_GETLINK, fill, parse_link).await.map_err(|e| Error::netlink("get link", subject(), e)) {
            Err(error) if error.is_not_found() => Ok(None),
            answer => answer,
        }
    }

    /// The link called `name`, which must exist.
    ///
    /// # Errors
    /// [`Error::NoSuchLink`], or when the kernel cannot be asked.
    pub async fn require_link(&self, name: &str) -> Result<Link> {
        self.link(name).await?.ok_or_else(|| Error::NoSuchLink(name.to_owned()))
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let links = self.list(RTM_GETLINK, IfInfoMsg::new().as_bytes(), parse_link).await;
        links.map_err(|e| Error::netlink("list links", "", e))
    }

    /// The bridge `name`, created when there is none; a new one is down, so that what must be set before can be. Another
    /// kind of link of that name is an error.
    ///
    /// # Errors
    /// [`Error::WrongLinkKind`], or the kernel's refusal.
    pub async fn ensure_bridge(&self, name: &str, mtu: Option<u32>) -> Result<Link> {
        if let Some(link) = self.bridge(name).await? {
            return Ok(link);
        }
        let created = self.change(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, |request| {
            request.append(&flagged(0, IFF_UP, false));
            append_name_and_mtu(request, name, mtu);
            let info = request.nest_start(IFLA_LINKINFO);
            request.append_attr_str(IFLA_INFO_KIND, "bridge");
            request.nest_end(info);
        });
        match created.await.map_err(|e| Error::netlink("create bridge", name, e)) {
            // Another ADD at the same time: the bridge is there, which is what was asked for.
            Err(error) if !error.is_already_exists() => return Err(error),
            _ => {}
        }
        self.bridge(name).await?.ok_or_else(|| Error::NoSuchLink(name.to_owned()))
    }

    async fn bridge(&self, name: &str) -> Result<Option<Link>> {
        match self.link(name).await? {
            Some(link) if link.kind != LinkKind::Bridge => {
                Err(Error::WrongLinkKind { name: name.to_owned(), wanted: "bridge" })
            }
            link => Ok(link),
        }
    }

    /// Creates a veth pair. This end is up; the other one cannot be before the pair is complete, and is set up by a
    /// conversation in its own namespace.
    ///
    /// # Errors
    /// The kernel's refusal; nothing exists then.
    pub async fn create_veth(&self, pair: &VethPair<'_>) -> Result<()> {
        let created = self.change(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, |request| {
            request.append(&flagged(0, IFF_UP, true));
            append_name_and_mtu(request, pair.name, pair.mtu);
            if let Some(master) = pair.master {
                request.append_attr_u32(IFLA_MASTER, master);
            }
            let info = request.nest_start(IFLA_LINKINFO);
            request.append_attr_str(IFLA_INFO_KIND, "veth");
            let data = request.nest_start(IFLA_INFO_DATA);
            append_peer(request, pair);
            request.nest_end(data);
            request.nest_end(info);
        });
        created.await.map_err(|e| Error::netlink("create veth", pair.name, e))
    }

    /// Deletes the link called `name`; a link that is gone is no error. Returns whether there was one.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn delete_link(&self, name: &str) -> Result<bool> {
        let deleted = self.change(RTM_DELLINK, 0, |request| {
            request.append(&header(0));
            request.append_attr_str(IFLA_IFNAME, name);
        });
        match deleted.await.map_err(|e| Error::netlink("delete link", name, e)) {
            Ok(()) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Sets the link up.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn set_up(&self, index: u32) -> Result<()> {
        self.change_link("set up link", flagged(index, IFF_UP, true), |_| {}).await
    }

    /// Sets the link's MTU in bytes.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        self.change_link("set mtu of link", header(index), |request| request.append_attr_u32(IFLA_MTU, mtu)).await
    }

    /// Sets the link's address.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn set_mac(&self, index: u32, mac: MacAddr) -> Result<()> {
        let fill = |request: &mut MessageBuilder| request.append_attr(IFLA_ADDRESS, &mac.0);
        self.change_link("set address of link", header(index), fill).await
    }

    /// Makes the link a port of the bridge `master`.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn set_master(&self, index: u32, master: u32) -> Result<()> {
        let fill = |request: &mut MessageBuilder| request.append_attr_u32(IFLA_MASTER, master);
        self.change_link("set master of link", header(index), fill).await
    }

    /// Lets the link receive frames for any address, or no longer.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn set_promiscuous(&self, index: u32, on: bool) -> Result<()> {
        self.change_link("set promiscuity of link", flagged(index, IFF_PROMISC, on), |_| {}).await
    }

    /// Lets a bridge port send frames back where they came from, or no longer.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn set_hairpin(&self, index: u32, on: bool) -> Result<()> {
        let fill = |request: &mut MessageBuilder| {
            let info = request.nest_start(IFLA_LINKINFO);
            request.append_attr_str(IFLA_INFO_SLAVE_KIND, "bridge");
            let data = request.nest_start(IFLA_INFO_SLAVE_DATA);
            request.append_attr_u8(IFLA_BRPORT_MODE, on.into());
            request.nest_end(data);
            request.nest_end(info);
        };
        self.change_link("set hairpin of port", header(index), fill).await
    }

    async fn change_link(
        &self,
        action: &'static str,
        header: IfInfoMsg,
        fill: impl FnOnce(&mut MessageBuilder),
    ) -> Result<()> {
        let changed = self.change(RTM_NEWLINK, 0, |request| {
            request.append(&header);
            fill(request);
        });
        changed.await.map_err(|e| Error::netlink(action, header.ifi_index, e))
    }

    /// Adds `address` to the link; an address that is there already is no error. IPv6 addresses skip duplicate
    /// address detection: the address came from an allocator, and a pod's must work at once.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn add_address(&self, index: u32, address: IpNet) -> Result<()> {
        let added = self.change(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, |request| {
            let header = IfAddrMsg::new().with_family(family(address.addr())).with_prefixlen(address.prefix_len());
            request.append(&header.with_index(index));
            append_address(request, address);
        });
        added.await.map_err(|e| Error::netlink("add address", address, e))
    }

    /// Removes `address` from the link; one that is gone is no error.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn delete_address(&self, index: u32, address: IpNet) -> Result<()> {
        let same = |message: &[u8]| (net_of(message)? == (index, address)).then(|| message.to_vec());
        let listed = self.list_addresses(index, same).await?;
        // As the kernel describes it: it may have a peer or a label, which count.
        let Some(message) = listed.first() else { return Ok(()) };
        let deleted = self.change(RTM_DELADDR, 0, |request| request.append_bytes(message));
        match deleted.await.map_err(|e| Error::netlink("delete address", address, e)) {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }

    /// The link's addresses with their prefix lengths.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn addresses(&self, index: u32) -> Result<Vec<IpNet>> {
        let of_link = |message: &[u8]| net_of(message).and_then(|(link, net)| (link == index).then_some(net));
        self.list_addresses(index, of_link).await
    }

    /// All addresses of the namespace, of whichever link.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn all_addresses(&self) -> Result<Vec<IpNet>> {
        let listed = self.list(RTM_GETADDR, IfAddrMsg::new().as_bytes(), |message| Some(net_of(message)?.1)).await;
        listed.map_err(|e| Error::netlink("list addresses of", "all links", e))
    }

    async fn list_addresses<T: Send>(&self, index: u32, read: impl Fn(&[u8]) -> Option<T> + Sync) -> Result<Vec<T>> {
        let listed = self.list(RTM_GETADDR, IfAddrMsg::new().as_bytes(), read).await;
        listed.map_err(|e| Error::netlink("list addresses of link", index, e))
    }
}

fn header(index: u32) -> IfInfoMsg {
    IfInfoMsg::new().with_index(index.cast_signed())
}

/// A header that sets the link's flag `flag`, or clears it.
fn flagged(index: u32, flag: i32, on: bool) -> IfInfoMsg {
    let flag = flag.cast_unsigned();
    IfInfoMsg { ifi_flags: if on { flag } else { 0 }, ifi_change: flag, ..header(index) }
}

fn append_name_and_mtu(request: &mut MessageBuilder, name: &str, mtu: Option<u32>) {
    request.append_attr_str(IFLA_IFNAME, name);
    if let Some(mtu) = mtu {
        request.append_attr_u32(IFLA_MTU, mtu);
    }
}

/// The pair's other end.
fn append_peer(request: &mut MessageBuilder, pair: &VethPair<'_>) {
    let peer = request.nest_start(VETH_INFO_PEER);
    request.append(&header(0));
    append_name_and_mtu(request, pair.peer_name, pair.mtu);
    request.append_attr_u32(IFLA_NET_NS_FD, pair.peer_namespace.as_fd().as_raw_fd().cast_unsigned());
    if let Some(MacAddr(mac)) = pair.peer_mac {
        request.append_attr(IFLA_ADDRESS, &mac);
    }
    request.nest_end(peer);
}

fn append_address(request: &mut MessageBuilder, address: IpNet) {
    // The kernel must refuse an address without attributes: a group's is none of a link's own.
    if address.addr().is_multicast() {
        return;
    }
    append_ip(request, IFA_ADDRESS, address.addr());
    append_ip(request, IFA_LOCAL, address.addr());
    match address {
        IpNet::V4(net) if net.prefix_len() < 31 => append_ip(request, IFA_BROADCAST, net.broadcast().into()),
        IpNet::V4(_) => {}
        IpNet::V6(_) => request.append_attr_u32(IFA_FLAGS, IFA_F_NODAD),
    }
}

/// The link that an address is of, and the address.
fn net_of(message: &[u8]) -> Option<(u32, IpNet)> {
    let header = IfAddrMsg::from_bytes(message).ok()?;
    let mut found: Option<IpAddr> = None;
    for (kind, value) in attributes(message, IfAddrMsg::SIZE) {
        match kind {
            // On a point-to-point link ADDRESS is the other end's: LOCAL wins where both are there.
            IFA_LOCAL => found = ip(value),
            IFA_ADDRESS if found.is_none() => found = ip(value),
            _ => {}
        }
    }
    Some((header.ifa_index, IpNet::new(found?, header.ifa_prefixlen).ok()?))
}

fn parse_link(message: &[u8]) -> Option<Link> {
    let header = IfInfoMsg::from_bytes(message).ok()?;
    let mut link = Link {
        index: header.ifi_index.cast_unsigned(),
        name: String::new(),
        kind: LinkKind::Other,
        mac: None,
        mtu: 0,
        master: None,
        peer: None,
        up: header.ifi_flags & IFF_UP.cast_unsigned() != 0,
        forwarding: false,
    };
    for (kind, value) in attributes(message, IfInfoMsg::SIZE) {
        match kind {
            IFLA_IFNAME => link.name = text(value).into_owned(),
            IFLA_MTU => link.mtu = number(value).unwrap_or_default(),
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(MacAddr),
            IFLA_MASTER => link.master = number(value),
            IFLA_LINK => link.peer = number(value),
            IFLA_LINKINFO => parse_info(value, &mut link),
            _ => {}
        }
    }
    Some(link)
}

fn parse_info(info: &[u8], link: &mut Link) {
    let mut is_port = false;
    for (kind, value) in attributes(info, 0) {
        match kind {
            IFLA_INFO_KIND => {
                link.kind = match &*text(value) {
                    "bridge" => LinkKind::Bridge,
                    "veth" => LinkKind::Veth,
                    _ => LinkKind::Other,
                }
            }
            // The kernel says what kind of port it is before it describes it.
            IFLA_INFO_SLAVE_KIND => is_port = text(value) == "bridge",
            IFLA_INFO_SLAVE_DATA if is_port => {
                link.forwarding =
                    attributes(value, 0).any(|is| is == (IFLA_BRPORT_STATE, [BR_STATE_FORWARDING].as_slice()));
            }
            _ => {}
        }
    }
}
