//! An rtnetlink conversation in a chosen namespace.

use std::fmt;
use std::io;

use nix::libc::{EBUSY, NLMSG_DONE, NLMSG_ERROR};
use nlink::netlink::attr::get;
use nlink::netlink::message::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use nlink::netlink::{MessageBuilder, MessageIter, NetlinkSocket, NlMsgHdr, Protocol};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::{Error, NetNs, Result};

/// How often a listing is asked for that is torn by changes meanwhile.
const DUMP_ATTEMPTS: usize = 10;

/// An rtnetlink conversation. Dropping it ends it.
///
/// Any number of tasks may use it: their requests take turns.
pub struct Netlink {
    socket: NetlinkSocket,
    /// Who has it may send: the kernel lists one thing at a time to a socket.
    turn: Mutex<()>,
}

/// Why a request did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The kernel's word, an errno.
    Refused(i32),
    /// The socket's.
    Socket(nlink::Error),
    /// A listing was torn by changes each time it was asked for.
    Torn,
}

impl From<nlink::Error> for Failure {
    fn from(error: nlink::Error) -> Self {
        Self::Socket(error)
    }
}

type Answer<T> = std::result::Result<T, Failure>;

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

impl Netlink {
    /// Opens a conversation inside `namespace`. It stays there wherever it is used.
    ///
    /// Must be called within a tokio runtime that has I/O enabled.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the socket not opened.
    pub fn open(namespace: &NetNs) -> Result<Self> {
        let runtime = Handle::try_current().map_err(|e| Error::Socket(io::Error::other(e)))?;
        namespace.run(move || {
            let _inside = runtime.enter();
            Self::open_current()
        })?
    }

    /// As [`Self::open`], by a [visit](NetNs::visit) of the calling thread.
    ///
    /// # Errors
    /// As [`Self::open`], and when the thread cannot be brought back.
    pub fn open_visiting(namespace: &NetNs) -> Result<Self> {
        namespace.visit(Self::open_current)?
    }

    /// Opens a conversation in the namespace of the calling thread, without the cost of a thread.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn open_current() -> Result<Self> {
        let socket = NetlinkSocket::new(Protocol::Route);
        let socket = socket
            .map_err(|e| Error::Socket(e.errno().map_or_else(|| io::Error::other(e), io::Error::from_raw_os_error)))?;
        Ok(Self { socket, turn: Mutex::new(()) })
    }

    /// Has the kernel do what a message of the kind `kind`, which `fill` completes, asks for.
    pub(crate) async fn change(&self, kind: u16, flags: u16, fill: impl FnOnce(&mut MessageBuilder)) -> Answer<()> {
        let mut request = MessageBuilder::new(kind, NLM_F_REQUEST | NLM_F_ACK | flags);
        fill(&mut request);
        self.exchange(request, &mut |_| {}).await
    }

    /// What `read` makes of the one answer to a request.
    pub(crate) async fn get<T: Send>(
        &self,
        kind: u16,
        fill: impl FnOnce(&mut MessageBuilder),
        read: impl Fn(&[u8]) -> Option<T> + Sync,
    ) -> Answer<Option<T>> {
        let mut request = MessageBuilder::new(kind, NLM_F_REQUEST);
        fill(&mut request);
        let mut found = None;
        self.exchange(request, &mut |message| found = read(message)).await?;
        Ok(found)
    }

    /// What `read` makes of each answer to the request to list, for which `header` says what.
    pub(crate) async fn list<T: Send>(
        &self,
        kind: u16,
        header: &[u8],
        read: impl Fn(&[u8]) -> Option<T> + Sync,
    ) -> Answer<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut request = MessageBuilder::new(kind, NLM_F_REQUEST | NLM_F_DUMP);
            request.append_bytes(header);
            let mut found = Vec::new();
            match self.exchange(request, &mut |message| found.extend(read(message))).await {
                // A list that was given up half-way was still being told: its rest is read now.
                Err(Failure::Torn | Failure::Refused(EBUSY)) => {}
                done => return done.map(|()| found),
            }
        }
        Err(Failure::Torn)
    }

    /// Sends `request` and gives each answer to `each`.
    async fn exchange(&self, mut request: MessageBuilder, each: &mut (dyn FnMut(&[u8]) + Send)) -> Answer<()> {
        let _turn = self.turn.lock().await;
        let number = self.socket.next_seq();
        request.set_seq(number);
        self.socket.send(&request.finish()).await?;
        self.answers(number, each).await
    }

    /// Reads all answers to the request `number`.
    async fn answers(&self, number: u32, each: &mut (dyn FnMut(&[u8]) + Send)) -> Answer<()> {
        let mut torn = false;
        loop {
            // A long list is not to hold up everybody else.
            tokio::task::coop::consume_budget().await;
            // The kernel answers while a request is sent, and goes on with a list while it is read: there is nothing to wait for.
            let datagram = match self.socket.try_recv_unicast()? {
                Some(datagram) => datagram,
                None => self.socket.recv_unicast().await?,
            };
            for message in MessageIter::new(&datagram) {
                let (header, payload) = message?;
                if header.nlmsg_seq != number {
                    continue;
                }
                torn |= header.is_dump_interrupted();
                if let Some(outcome) = end(header, payload) {
                    return outcome.and(if torn { Err(Failure::Torn) } else { Ok(()) });
                }
                each(payload);
                if !header.is_multi() {
                    return Ok(());
                }
            }
        }
    }
}

/// What came of a request, if this is the message that says so: an errno of the kernel's, or 0.
fn end(header: &NlMsgHdr, payload: &[u8]) -> Option<Answer<()>> {
    if ![NLMSG_ERROR, NLMSG_DONE].contains(&i32::from(header.nlmsg_type)) {
        return None;
    }
    Some(match get::i32_ne(payload) {
        Ok(0) => Ok(()),
        Ok(errno) => Err(Failure::Refused(errno.saturating_abs())),
        Err(error) => Err(error.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_was_broken_off_is_no_list() {
        let end_of = |kind: i32, payload: &[u8]| end(&NlMsgHdr::new(kind.try_into().unwrap(), 0), payload);
        assert!(matches!(end_of(NLMSG_DONE, &0i32.to_ne_bytes()), Some(Ok(()))));
        assert!(matches!(end_of(NLMSG_DONE, &(-16i32).to_ne_bytes()), Some(Err(Failure::Refused(16)))));
        assert!(matches!(end_of(NLMSG_ERROR, &(-19i32).to_ne_bytes()), Some(Err(Failure::Refused(19)))));
        assert!(matches!(end_of(NLMSG_ERROR, &[0]), Some(Err(Failure::Socket(_)))));
        assert!(end_of(16, &[]).is_none());
    }
}
