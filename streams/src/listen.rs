//! Listening as Go does: an unspecified address means every address of both families.
//!
//! `0.0.0.0`, the default of a kubelet and of an API server, is IPv4 alone for a kernel, and machines of today may have IPv6 only. Go's
//! `net.Listen` takes one socket for both, and so does this; peers of IPv4 then have addresses such as `::ffff:192.0.2.1`
//! ([`std::net::IpAddr::to_canonical`] undoes that).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as Blocking};

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

/// Connections that wait until they are accepted, at most: as tokio has it.
const BACKLOG: i32 = 1024;

/// Listens at `address`.
///
/// # Errors
/// The port is taken, or the address is not ours.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = open(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// The same for who has no runtime.
///
/// # Errors
/// As [`bind`].
pub fn open(address: SocketAddr) -> io::Result<Blocking> {
    if !address.ip().is_unspecified() {
        return one(address, false);
    }
    match one((Ipv6Addr::UNSPECIFIED, address.port()).into(), true) {
        // Who says `::` means more than IPv4.
        Err(error) if address.is_ipv4() && lacks_ipv6(&error) => {
            one((Ipv4Addr::UNSPECIFIED, address.port()).into(), false)
        }
        listening => listening,
    }
}

fn one(address: SocketAddr, of_both: bool) -> io::Result<Blocking> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if of_both {
        // Whatever net.ipv6.bindv6only says.
        socket.set_only_v6(false)?;
    }
    // A port is free again as soon as who had it is gone, though connections of his are not forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Booted with ipv6.disable=1, built without it, or switched off.
fn lacks_ipv6(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, Unsupported};
    matches!(error.kind(), AddrNotAvailable | Unsupported)
        || error.raw_os_error().is_some_and(|code| NO_FAMILY.contains(&code))
}

/// Linux's EAFNOSUPPORT and EPROTONOSUPPORT, for which `std` has no kind.
const NO_FAMILY: [i32; 2] = [97, 93];

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn an_unspecified_address_is_both_families() {
        for any in ["0.0.0.0:0", "[::]:0"] {
            let listener = open(any.parse().unwrap()).unwrap();
            let port = listener.local_addr().unwrap().port();
            for to in ["127.0.0.1", "::1"] {
                TcpStream::connect((to, port)).unwrap_or_else(|error| panic!("{any} by {to}: {error}"));
                let (_, peer) = listener.accept().unwrap();
                assert_eq!(peer.ip().to_canonical().to_string(), to);
            }
            // All of it is taken.
            assert_eq!(open(SocketAddr::new([0, 0, 0, 0].into(), port)).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn a_concrete_address_is_that_one_alone() {
        let listener = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_ok() && TcpStream::connect(("::1", port)).is_err());
    }

    #[test]
    fn a_machine_without_ipv6_is_told_from_a_port_that_is_taken() {
        for (code, lacks) in [(97, true), (99, true), (98, false), (13, false)] {
            assert_eq!(lacks_ipv6(&io::Error::from_raw_os_error(code)), lacks, "{code}");
        }
    }
}
