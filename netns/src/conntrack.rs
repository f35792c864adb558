//! Connection tracking entries: deleting those whose destination is gone.
//!
//! A TCP client notices that its peer is gone; a UDP client keeps its entry alive for as long as it sends, and so would
//! send to a removed endpoint for ever.

use std::fmt;
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

    /// Deletes the UDP entries that `stale` says are so, and returns how many went.
    ///
    /// # Errors
    /// When entries cannot be listed or one cannot be deleted; one that is gone already is no error.
    pub async fn delete_udp(&self, stale: impl Fn(&UdpFlow) -> bool) -> Result<usize> {
        let filter = ConntrackFilter::new().proto(IpProtocol::Udp);
        let entries = self.connection.get_conntrack_matching(&filter).await;
        let entries = entries.map_err(|source| Error::Conntrack { action: "list", source })?;
        let mut deleted = 0;
        for entry in entries.iter().filter(|entry| flow(entry).is_some_and(|flow| stale(&flow))) {
            match self.connection.del_conntrack_entry(entry).await {
                Ok(()) => deleted += 1,
                Err(e) if e.is_not_found() => {}
                Err(source) => return Err(Error::Conntrack { action: "delete", source }),
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
