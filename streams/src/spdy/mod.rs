//! SPDY/3.1 as Kubernetes uses it: streams that either side ends on its own, no priorities, no flow control (the peer, moby's
//! spdystream, has none either).

mod connection;
mod frame;
mod headers;
#[cfg(test)]
mod tests;

pub use connection::{Connection, ReadHalf, Stream, WriteHalf};
pub use frame::Headers;

use std::io;

/// Why a SPDY connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum SpdyError {
    #[error("read or write")]
    Io(#[from] io::Error),
    #[error("the peer sent what is no SPDY/3.1: {0}")]
    Protocol(&'static str),
    #[error("the peer refused a stream with status {0}")]
    Refused(u32),
    #[error("the connection is closed")]
    Closed,
}
