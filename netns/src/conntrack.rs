//! Connection tracking entries: deleting those whose destination is gone.
//!
//! A TCP client notices that its peer is gone; a UDP client keeps its entry alive for as long as it sends, and so would
//! send to a removed endpoint for ever.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::os::fd::AsFd;

use nlink::netlink::netfilter::{ConntrackEntry, ConntrackFilter, IpProtocol};
use nlink::netlink::{Connection, Netfilter};

use crate::{Error, NetNs, Result};

const IPS_DST_NAT: u32 = 0x20;

/// A UDP connection, as far as it matters to who translates addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpFlow {
    /// Where the client sent to.
    pub original: (IpAddr, u16),
    /// Who answers: differs from `original` when the destination was translated.
    pub answering: (IpAddr, u16),
    /// Whether the destination was translated.
    pub translated: bool,
}

/// What came of deleting entries.
#[derive(Debug, Default)]
pub struct Deleted {
    /// How many went.
    pub gone: usize,
    /// Those that the kernel keeps.
    pub kept: Vec<UdpFlow>,
    /// Why it keeps the first of them.
    pub error: Option<Error>,
}

impl Deleted {
    /// How many went, if all did.
    ///
    /// # Errors
    /// When the kernel keeps one.
    pub fn all(self) -> Result<usize> {
        self.error.map_or(Ok(self.gone), Err)
    }
}

/// Where connections are forgotten: the kernel, or a stand-in for tests.
pub trait Flows {
    /// Deletes the UDP entries that `stale` says are so. One that cannot be deleted does not keep the others; one that is gone already is no
    /// error.
    ///
    /// # Errors
    /// When entries cannot be listed.
    fn delete_udp(&self, stale: impl Fn(&UdpFlow) -> bool + Send) -> impl Future<Output = Result<Deleted>> + Send;
}

/// A conversation with the kernel's connection tracking.
pub struct Conntrack {
    connection: Connection<Netfilter>,
}

impl fmt::Debug for Conntrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conntrack").finish_non_exhaustive()
    }
}

impl Conntrack {
    /// Opens a conversation inside `namespace`.
    ///
    /// # Errors
    /// When the socket cannot be opened there.
    pub fn open(namespace: &NetNs) -> Result<Self> {
        let connection = Connection::<Netfilter>::new_in(namespace.as_fd())
            .map_err(|source| Error::Conntrack { action: "open", source })?;
        Ok(Self { connection })
    }
}

impl Flows for Conntrack {
    async fn delete_udp(&self, stale: impl Fn(&UdpFlow) -> bool + Send) -> Result<Deleted> {
        let filter = ConntrackFilter::new().proto(IpProtocol::Udp);
        let entries = self.connection.get_conntrack_matching(&filter).await;
        let entries = entries.map_err(|source| Error::Conntrack { action: "list", source })?;
        let mut deleted = Deleted::default();
        for (entry, flow) in entries.iter().filter_map(|entry| Some((entry, flow(entry)?))) {
            if !stale(&flow) {
                continue;
            }
            match self.connection.del_conntrack_entry(entry).await {
                Ok(()) => deleted.gone += 1,
                Err(e) if e.is_not_found() => {}
                Err(source) => {
                    deleted.kept.push(flow);
                    deleted.error.get_or_insert(Error::Conntrack { action: "delete", source });
                }
            }
        }
        Ok(deleted)
    }
}

fn flow(entry: &ConntrackEntry) -> Option<UdpFlow> {
    Some(UdpFlow {
        original: (entry.orig.dst_ip?, entry.orig.dst_port?),
        answering: (entry.reply.src_ip?, entry.reply.src_port?),
        translated: entry.status.unwrap_or(0) & IPS_DST_NAT != 0,
    })
}
