//! Addresses and networks as texts (`apimachinery/pkg/util/validation/ip.go`).

use std::fmt::{self, Display, Write as _};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::value::Fields;
use crate::warnings::Warnings;

const INVALID_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
pub(crate) const INVALID_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// The bits of an IPv6 address before the IPv4 one in it.
const MAPPED_BITS: u8 = 96;

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

/// Upstream's `GetWarningsForIP`: an address in another spelling than the one it has.
pub(crate) fn warn_of_ip(text: &str, path: &Path, warnings: &mut Warnings) {
    let Ok(ip) = text.parse::<IpAddr>().or_else(|_| unpadded(text).parse()) else { return };
    if is_spelled(text, &ip) && !is_mapped(ip) {
        return;
    }
    let canonical = ip.to_canonical();
    if ip.is_ipv4() || is_mapped(ip) {
        warnings.of(path, format_args!("non-standard IP address {text:?} is invalid: use \"{canonical}\""));
    } else {
        warnings
            .of(path, format_args!("IPv6 address {text:?} should be in RFC 5952 canonical format (\"{canonical}\")"));
    }
}

/// Upstream's `GetWarningsForCIDR`: a network in another spelling, or an address where a network should be.
pub(crate) fn warn_of_cidr(text: &str, path: &Path, warnings: &mut Warnings) {
    let Ok(network) = text.parse::<IpNet>().or_else(|_| unpadded(text).parse()) else { return };
    let (is_network, mapped) = (network.trunc() == network, is_mapped(network.addr()));
    if is_network && !mapped && is_spelled(text, &network) {
        return;
    }
    let whole = shown(network.trunc());
    if !is_network {
        let one = format!("{}/{}", network.addr().to_canonical(), network.max_prefix_len());
        warnings.of(
            path,
            format_args!("CIDR value {text:?} is ambiguous in this context (should be \"{whole}\" or \"{one}\"?)"),
        );
    }
    if mapped || unpadded(text) != text {
        warnings.of(path, format_args!("non-standard CIDR value {text:?} is invalid: use \"{whole}\""));
    } else if is_network {
        warnings
            .of(path, format_args!("IPv6 CIDR value {text:?} should be in RFC 5952 canonical format (\"{whole}\")"));
    }
}

/// [`warn_of_ip`] for each text of a list.
pub(crate) fn warn_of_ips(list: &[Value], path: &Path, warnings: &mut Warnings) {
    for (index, ip) in list.iter().filter_map(Value::as_str).enumerate() {
        warn_of_ip(ip, &path.index(index), warnings);
    }
}

/// [`warn_of_cidr`] for each text of a list.
pub(crate) fn warn_of_cidrs(list: &[Value], path: &Path, warnings: &mut Warnings) {
    for (index, cidr) in list.iter().filter_map(Value::as_str).enumerate() {
        warn_of_cidr(cidr, &path.index(index), warnings);
    }
}

/// What load balancers say of themselves (`status.loadBalancer.ingress`).
pub(crate) fn warn_of_load_balancer(object: &Value, warnings: &mut Warnings) {
    let path = Path::root("status.loadBalancer.ingress");
    for (index, ingress) in object.at("status").at("loadBalancer").list("ingress").iter().enumerate() {
        warn_of_ip(ingress.text("ip"), &path.index(index), warnings);
    }
}

/// As Go prints a network: one of IPv4 in IPv6 as that of IPv4.
fn shown(network: IpNet) -> String {
    match network.addr().to_canonical() {
        IpAddr::V4(v4) if is_mapped(network.addr()) => {
            format!("{v4}/{}", network.prefix_len().saturating_sub(MAPPED_BITS))
        }
        _ => network.to_string(),
    }
}

/// Whether `value` is written so, found without writing it anywhere.
fn is_spelled(text: &str, value: &dyn Display) -> bool {
    let mut rest = Rest(text);
    write!(rest, "{value}").is_ok() && rest.0.is_empty()
}

/// What is left of a text after what was written was found at its beginning.
struct Rest<'a>(&'a str);

impl fmt::Write for Rest<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
        Ok(())
    }
}
