//! Addresses and networks as texts (`apimachinery/pkg/util/validation/ip.go`).

use std::net::IpAddr;

use ipnet::IpNet;

use crate::errors::{Errors, Path};

const INVALID_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
pub(crate) const INVALID_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// Upstream's `IsValidIP`: an address in the one spelling that it has.
pub(crate) fn strict_ip(text: &str) -> Option<String> {
    let plain = unpadded(text);
    let Ok(ip) = plain.parse::<IpAddr>() else { return Some(INVALID_IP.to_owned()) };
    if plain != text {
        return Some("must not have leading 0s".to_owned());
    }
    if is_mapped(ip) {
        return Some("must not be an IPv4-mapped IPv6 address".to_owned());
    }
    not_canonical(text, &ip.to_string())
}

/// Upstream's `IsValidCIDR`: a network in the one spelling that it has.
pub(crate) fn strict_cidr(text: &str) -> Option<String> {
    let plain = unpadded(text);
    let Ok(network) = plain.parse::<IpNet>() else { return Some(INVALID_CIDR.to_owned()) };
    if plain != text {
        return Some("must not have leading 0s in IP or prefix length".to_owned());
    }
    if is_mapped(network.addr()) {
        return Some("must not have an IPv4-mapped IPv6 address".to_owned());
    }
    if network.trunc() != network {
        return Some("must not have bits set beyond the prefix length".to_owned());
    }
    not_canonical(text, &network.to_string())
}

fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

fn not_canonical(text: &str, canonical: &str) -> Option<String> {
    (text != canonical).then(|| format!("must be in canonical form ({canonical:?})"))
}

/// Without the zeros that numbers between dots, and the length of a prefix, begin with.
fn unpadded(text: &str) -> String {
    let number = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    let (ip, length) = text.split_once('/').map_or((text, None), |(ip, length)| (ip, Some(length)));
    let ip = if ip.contains(':') { ip.to_owned() } else { ip.split('.').map(number).collect::<Vec<_>>().join(".") };
    length.map_or_else(|| ip.clone(), |length| format!("{ip}/{}", number(length)))
}

/// Upstream's `ValidateEndpointIP`: an address of somebody else.
pub(crate) fn endpoint_ip(text: &str, path: &Path, errors: &mut Errors) {
    let Ok(ip) = text.parse::<IpAddr>() else {
        return errors.invalid(path, text, INVALID_IP);
    };
    let (link_local, group) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets().starts_with(&[224, 0, 0])),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments().first().is_some_and(|s| s & 0xff0f == 0xff02)),
    };
    if ip.is_unspecified() {
        errors.invalid(path, text, &format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        errors.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        errors.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if group {
        errors.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}
