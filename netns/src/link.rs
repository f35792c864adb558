//! Links and their addresses.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::str::FromStr;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    BridgePortState, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::{Error, NetNs, Netlink, Result};

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
        self.get_link(name, self.handle.link().get().match_name(name)).await
    }

    /// The link with index `index`, if there is one.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<Link>> {
        self.get_link(index, self.handle.link().get().match_index(index)).await
    }

    async fn get_link(&self, subject: impl ToString, request: rtnetlink::LinkGetRequest) -> Result<Option<Link>> {
        match request.execute().try_next().await {
            Ok(message) => Ok(message.map(parse_link)),
            Err(error) => match Error::rtnetlink("get link", subject, error) {
                error if error.is_not_found() => Ok(None),
                error => Err(error),
            },
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
        let links = self.handle.link().get().execute().map_ok(parse_link).try_collect().await;
        links.map_err(|e| Error::rtnetlink("list links", "", e))
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
        let mut message = LinkBridge::new(name).down();
        if let Some(mtu) = mtu {
            message = message.mtu(mtu);
        }
        match self.handle.link().add(message.build()).execute().await {
            Ok(()) => {}
            // Another ADD at the same time: the bridge is there, which is what was asked for.
            Err(error) => match Error::rtnetlink("create bridge", name, error) {
                error if error.is_already_exists() => {}
                error => return Err(error),
            },
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
        let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(pair.peer_name)
            .setns_by_fd(pair.peer_namespace.as_fd().as_raw_fd());
        let mut link = LinkVeth::new(pair.name, pair.peer_name).up();
        if let Some(MacAddr(mac)) = pair.peer_mac {
            peer = peer.address(mac.to_vec());
        }
        if let Some(mtu) = pair.mtu {
            peer = peer.mtu(mtu);
            link = link.mtu(mtu);
        }
        if let Some(master) = pair.master {
            link = link.controller(master);
        }
        let link = link.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        let added = self.handle.link().add(link.build()).execute().await;
        added.map_err(|e| Error::rtnetlink("create veth", pair.name, e))
    }

    /// Deletes the link called `name`; a link that is gone is no error. Returns whether there was one.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn delete_link(&self, name: &str) -> Result<bool> {
        let message = LinkUnspec::new_with_name(name).build();
        let deleted = rtnetlink::LinkDelRequest::new_with_message(self.handle.clone(), message).execute().await;
        match deleted.map_err(|e| Error::rtnetlink("delete link", name, e)) {
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
        self.change_link("set up link", LinkUnspec::new_with_index(index).up().build()).await
    }

    /// Sets the link's MTU in bytes.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        self.change_link("set mtu of link", LinkUnspec::new_with_index(index).mtu(mtu).build()).await
    }

    /// Sets the link's address.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn set_mac(&self, index: u32, mac: MacAddr) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).address(mac.0.to_vec()).build();
        self.change_link("set address of link", message).await
    }

    /// Makes the link a port of the bridge `master`.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn set_master(&self, index: u32, master: u32) -> Result<()> {
        self.change_link("set master of link", LinkUnspec::new_with_index(index).controller(master).build()).await
    }

    /// Lets the link receive frames for any address, or no longer.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn set_promiscuous(&self, index: u32, on: bool) -> Result<()> {
        self.change_link("set promiscuity of link", LinkUnspec::new_with_index(index).promiscuous(on).build()).await
    }

    /// Lets a bridge port send frames back where they came from, or no longer.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn set_hairpin(&self, index: u32, on: bool) -> Result<()> {
        let message = LinkBridgePort::new(index).hairpin(on).build();
        self.change_link("set hairpin of port", message).await
    }

    async fn change_link(&self, action: &'static str, message: LinkMessage) -> Result<()> {
        let index = message.header.index;
        self.handle.link().change(message).execute().await.map_err(|e| Error::rtnetlink(action, index, e))
    }

    /// Adds `address` to the link; an address that is there already is no error. IPv6 addresses skip duplicate
    /// address detection: the address came from an allocator, and a pod's must work at once.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn add_address(&self, index: u32, address: IpNet) -> Result<()> {
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len()).replace();
        if address.addr().is_ipv6() {
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.map_err(|e| Error::rtnetlink("add address", address, e))
    }

    /// Removes `address` from the link; one that is gone is no error.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn delete_address(&self, index: u32, address: IpNet) -> Result<()> {
        let message = self.address_messages(index).await?.into_iter().find(|m| net_of(m) == Some(address));
        let Some(message) = message else { return Ok(()) };
        let deleted = self.handle.address().del(message).execute().await;
        match deleted.map_err(|e| Error::rtnetlink("delete address", address, e)) {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }

    /// The link's addresses with their prefix lengths.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn addresses(&self, index: u32) -> Result<Vec<IpNet>> {
        Ok(self.address_messages(index).await?.iter().filter_map(net_of).collect())
    }

    /// All addresses of the namespace, of whichever link.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn all_addresses(&self) -> Result<Vec<IpNet>> {
        let listed = self.handle.address().get().execute().try_collect::<Vec<_>>().await;
        let messages = listed.map_err(|e| Error::rtnetlink("list addresses of", "all links", e))?;
        Ok(messages.iter().filter_map(net_of).collect())
    }

    async fn address_messages(&self, index: u32) -> Result<Vec<AddressMessage>> {
        let request = self.handle.address().get().set_link_index_filter(index);
        request.execute().try_collect().await.map_err(|e| Error::rtnetlink("list addresses of link", index, e))
    }
}

fn net_of(message: &AddressMessage) -> Option<IpNet> {
    let mut found: Option<IpAddr> = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link ADDRESS is the other end's: LOCAL wins where both are there.
            AddressAttribute::Local(ip) => found = Some(*ip),
            AddressAttribute::Address(ip) if found.is_none() => found = Some(*ip),
            _ => {}
        }
    }
    IpNet::new(found?, message.header.prefix_len).ok()
}

fn parse_link(message: LinkMessage) -> Link {
    let up = message.header.flags.contains(LinkFlags::Up);
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: LinkKind::Other,
        mac: None,
        mtu: 0,
        master: None,
        peer: None,
        up,
        forwarding: false,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) => link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr),
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Link(index) => link.peer = Some(index),
            LinkAttribute::LinkInfo(info) => {
                link.kind = kind_of(&info);
                link.forwarding = is_forwarding(&info);
            }
            _ => {}
        }
    }
    link
}

fn is_forwarding(info: &[LinkInfo]) -> bool {
    let state = InfoBridgePort::State(BridgePortState::Forwarding);
    info.iter().any(|info| matches!(info, LinkInfo::PortData(InfoPortData::BridgePort(port)) if port.contains(&state)))
}

fn kind_of(info: &[LinkInfo]) -> LinkKind {
    let kind = info.iter().find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
    match kind {
        Some(InfoKind::Bridge) => LinkKind::Bridge,
        Some(InfoKind::Veth) => LinkKind::Veth,
        _ => LinkKind::Other,
    }
}
