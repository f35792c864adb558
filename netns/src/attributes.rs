//! Attributes of netlink messages: reading them, and writing addresses.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc::{AF_INET, AF_INET6};
use nlink::netlink::{AttrIter, MessageBuilder};

/// The attributes that follow a header of `header` bytes.
pub(crate) fn attributes(message: &[u8], header: usize) -> AttrIter<'_> {
    AttrIter::new(message.get(header..).unwrap_or_default())
}

/// The value as a number.
pub(crate) fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// The value as text, which ends at a null byte.
pub(crate) fn text(value: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default())
}

/// The value as an address, whose length tells the family.
pub(crate) fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(|octets| Ipv4Addr::from(octets).into());
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(|octets| Ipv6Addr::from(octets).into())).ok()
}

/// Appends `address` as the attribute `kind`.
pub(crate) fn append_ip(request: &mut MessageBuilder, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => request.append_attr(kind, &address.octets()),
        IpAddr::V6(address) => request.append_attr(kind, &address.octets()),
    }
}

/// The number of the address's family.
pub(crate) fn family(address: IpAddr) -> u8 {
    // Both fit, as headers have it.
    (if address.is_ipv4() { AF_INET } else { AF_INET6 }) as u8
}
