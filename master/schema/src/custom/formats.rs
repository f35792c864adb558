//! `format` of string schemas (`k8s.io/kube-openapi/pkg/validation/strfmt`).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::Date;
use regex::Regex;

use crate::names;

type Check = fn(&str) -> bool;

/// Formats by their name without dashes.
const FORMATS: [(&str, Check); 22] = [
    ("bsonobjectid", |text| text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit())),
    ("uri", is_uri),
    ("email", |text| text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())),
    ("hostname", |text| text.len() <= 253 && names::dns_subdomain(&text.to_ascii_lowercase()).is_empty()),
    ("ipv4", |text| text.parse::<Ipv4Addr>().is_ok()),
    ("ipv6", |text| text.parse::<Ipv6Addr>().is_ok()),
    ("cidr", |text| text.contains('/') && text.parse::<IpNet>().is_ok()),
    ("mac", is_mac),
    ("uuid", |text| is_uuid(text, None)),
    ("uuid3", |text| is_uuid(text, Some('3'))),
    ("uuid4", |text| is_uuid(text, Some('4'))),
    ("uuid5", |text| is_uuid(text, Some('5'))),
    ("creditcard", |text| (12..=19).contains(&text.bytes().filter(u8::is_ascii_digit).count())),
    ("ssn", |text| matches(&SSN, text)),
    ("hexcolor", |text| matches(&HEX_COLOR, text)),
    ("rgbcolor", |text| matches(&RGB_COLOR, text)),
    ("byte", |text| STANDARD.decode(text).is_ok()),
    ("date", |text| text.len() == 10 && text.parse::<Date>().is_ok()),
    ("duration", |text| matches(&DURATION, text)),
    ("datetime", |text| text.contains('T') && text.parse::<Timestamp>().is_ok()),
    ("k8sshortname", |text| names::dns_label(text).is_empty()),
    ("k8slongname", |text| names::dns_subdomain(text).is_empty()),
];

type Pattern = LazyLock<Option<Regex>>;

static SSN: Pattern = LazyLock::new(|| Regex::new(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$").ok());
static HEX_COLOR: Pattern = LazyLock::new(|| Regex::new("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$").ok());
static RGB_COLOR: Pattern = LazyLock::new(|| Regex::new(r"^rgb\(\s*\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}\s*\)$").ok());
static DURATION: Pattern = LazyLock::new(|| {
    Regex::new(r"^[-+]?(0|((\d+(\.\d*)?|\.\d+)\s*(ns|us|µs|μs|ms|s|m|h|d|w|second|minute|hour|day|week)s?\s*)+)$").ok()
});

fn matches(pattern: &Pattern, text: &str) -> bool {
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

fn of(format: &str) -> Option<Check> {
    let name = format.replace('-', "");
    FORMATS.iter().find(|(known, _)| *known == name).map(|(_, check)| *check)
}

/// Whether values are checked against a format of this name.
pub(super) fn is_known(format: &str) -> bool {
    of(format).is_some()
}

/// Whether a text has the format; of an unknown one everything has.
pub(super) fn has(format: &str, text: &str) -> bool {
    of(format).is_none_or(|check| check(text))
}

fn is_uri(text: &str) -> bool {
    let scheme = text.split_once(':').map(|(scheme, rest)| {
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(letters) && !rest.is_empty()
    });
    (scheme == Some(true) || text.starts_with('/')) && !text.contains(|c: char| c.is_ascii_control() || c == ' ')
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    let hex: Vec<char> = text.chars().filter(|c| *c != '-').collect();
    let variant =
        |c: &char| !matches!(version, Some('4' | '5')) || matches!(c.to_ascii_lowercase(), '8' | '9' | 'a' | 'b');
    hex.len() == 32
        && hex.iter().all(char::is_ascii_hexdigit)
        && version.is_none_or(|version| hex.get(12) == Some(&version))
        && hex.get(16).is_some_and(variant)
}

#[cfg(test)]
mod tests {
    use super::has;

    #[test]
    fn formats_good_and_bad() {
        let good = [
            ("date-time", "2014-12-15T19:30:20.000Z"),
            ("ipv4", "10.0.0.1"),
            ("cidr", "10.0.0.0/8"),
            ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
            ("duration", "1h30m"),
            ("k8s-short-name", "a-b"),
            ("uri", "https://example.com/x"),
            ("of-nobody", "anything"),
        ];
        for (format, text) in good {
            assert!(has(format, text), "{format} {text}");
        }
        for (format, text) in [("date-time", "2014"), ("ipv4", "::1"), ("uuid", "x"), ("duration", "1"), ("mac", "1:2")]
        {
            assert!(!has(format, text), "{format} {text}");
        }
    }
}
