//! An rtnetlink conversation in a chosen namespace.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use nix::sys::socket::{self, AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType};
use rtnetlink::Handle;
use rtnetlink::sys::TokioSocket;
use tokio::task::JoinHandle;

use crate::{Error, NetNs, Result};

/// An rtnetlink conversation. Dropping it ends it.
#[derive(Debug)]
pub struct Netlink {
    pub(crate) handle: Handle,
    driver: JoinHandle<()>,
}

impl Netlink {
    /// Opens a conversation inside `namespace`. It stays there wherever it is used.
    ///
    /// Must be called within a tokio runtime that has I/O enabled.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the socket not opened.
    pub fn open(namespace: &NetNs) -> Result<Self> {
        let socket = namespace.run(route_socket)?.map_err(Error::Socket)?;
        Ok(Self::start(socket))
    }

    /// As [`Self::open`], by a [visit](NetNs::visit) of the calling thread.
    ///
    /// # Errors
    /// As [`Self::open`], and when the thread cannot be brought back.
    pub fn open_visiting(namespace: &NetNs) -> Result<Self> {
        let socket = namespace.visit(route_socket)?.map_err(Error::Socket)?;
        Ok(Self::start(socket))
    }

    /// Opens a conversation in the namespace of the calling thread, without the cost of a thread.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn open_current() -> Result<Self> {
        Ok(Self::start(route_socket().map_err(Error::Socket)?))
    }

    fn start(socket: OwnedFd) -> Self {
        // SAFETY: the descriptor is an open netlink socket, and its ownership passes to the TokioSocket.
        #[allow(unsafe_code)]
        let socket = unsafe { TokioSocket::from_raw_fd(socket.into_raw_fd()) };
        let (connection, handle, _unsolicited) = rtnetlink::from_socket(socket);
        Self { handle, driver: tokio::spawn(connection) }
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn route_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}
