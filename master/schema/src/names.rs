//! What may be a name: the formats of `k8s.io/apimachinery/pkg/util/validation`, with its texts.

pub(crate) use api::names::{label_key_errors as qualified_name, label_value_errors as label_value};

use crate::addresses;
use crate::kind::NameRule;

pub(crate) type Complaints = Vec<String>;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";

fn too_long(most: usize) -> String {
    format!("must be no more than {most} characters")
}

/// `… (e.g. 'a',  or 'b', regex used for validation is 'r')`
fn mismatch(text: &str, examples: &[&str], regex: &str) -> String {
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{text} (e.g. {}regex used for validation is '{regex}')", examples.join(" or "))
}

fn is_alphanumeric_label(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_alphanumeric_label)
}

/// RFC 1123 label.
pub(crate) fn dns_label(value: &str) -> Complaints {
    let mut out = Vec::new();
    if value.len() > 63 {
        out.push(too_long(63));
    }
    if !is_alphanumeric_label(value) {
        out.push(if is_subdomain(value) {
            "must not contain dots".to_string()
        } else {
            mismatch(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character",
                &["my-name", "123-abc"],
                LABEL,
            )
        });
    }
    out
}

/// RFC 1123 subdomain.
pub(crate) fn dns_subdomain(value: &str) -> Complaints {
    let mut out = Vec::new();
    if value.len() > 253 {
        out.push(too_long(253));
    }
    if !is_subdomain(value) {
        out.push(mismatch(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            &["example.com"],
            &format!("{LABEL}(\\.{LABEL})*"),
        ));
    }
    out
}

/// RFC 1035 label: starts with a letter.
pub(crate) fn dns_1035_label(value: &str) -> Complaints {
    let mut out = Vec::new();
    if value.len() > 63 {
        out.push(too_long(63));
    }
    if !is_alphanumeric_label(value) || value.starts_with(|c: char| c.is_ascii_digit()) {
        out.push(mismatch(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            &["my-name", "abc-123"],
            LABEL_1035,
        ));
    }
    out
}

/// Anything that can be one segment of a URL path.
pub(crate) fn path_segment(value: &str, prefix: bool) -> Complaints {
    if !prefix && matches!(value, "." | "..") {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"].iter().filter(|bad| value.contains(**bad)).map(|bad| format!("may not contain '{bad}'")).collect()
}

/// A key of a ConfigMap or Secret.
pub(crate) fn config_key(value: &str) -> Complaints {
    let mut out = Vec::new();
    if value.len() > 253 {
        out.push(too_long(253));
    }
    if value.is_empty() || !value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        out.push(mismatch(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            &["key.name", "KEY_NAME", "key-name"],
            "[-._a-zA-Z0-9]+",
        ));
    }
    out.extend(dots(value));
    out
}

fn dots(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_string()),
        ".." => Some("must not be '..'".to_string()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_string()),
        _ => None,
    }
}

/// The name of an environment variable (KEP-4369: any printable ASCII but `=`).
pub(crate) fn env_name(value: &str) -> Complaints {
    let mut out = Vec::new();
    if value.is_empty() {
        out.push("environment variable name must be non-empty".to_string());
    }
    if !value.chars().all(|c| (c.is_ascii_graphic() || c == ' ') && c != '=') {
        out.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_string(),
        );
    }
    out
}

/// Why a condition is as it is, in one word.
pub(crate) fn condition_reason(value: &str) -> Complaints {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ',' | ':');
    let fits = value.starts_with(|c: char| c.is_ascii_alphabetic())
        && value.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && value.chars().all(inner);
    if fits {
        return Vec::new();
    }
    vec![mismatch(
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric \
         characters or '_,:', and must end with an alphanumeric character or '_'",
        &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
    )]
}

/// An identifier as in C.
pub(crate) fn c_identifier(value: &str) -> Complaints {
    let starts_well = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts_well && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Vec::new();
    }
    vec![mismatch(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
         characters or '_'",
        &["my_name", "MY_NAME", "MyName"],
        "[A-Za-z_][A-Za-z0-9_]*",
    )]
}

/// The name of a port (an IANA service name).
pub(crate) fn port_name(value: &str) -> Complaints {
    let mut out = Vec::new();
    if value.len() > 15 {
        out.push(too_long(15));
    }
    if value.is_empty() || !value.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        out.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_string());
    }
    if !value.chars().any(|c| c.is_ascii_lowercase()) {
        out.push("must contain at least one letter (a-z)".to_string());
    }
    if value.contains("--") {
        out.push("must not contain consecutive hyphens".to_string());
    }
    if value.starts_with('-') || value.ends_with('-') {
        out.push("must not begin or end with a hyphen".to_string());
    }
    out
}

/// The name of an HTTP header.
pub(crate) fn http_header(value: &str) -> Complaints {
    if !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Vec::new();
    }
    vec![mismatch(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        &["X-Header-Name"],
        "[-A-Za-z0-9]+",
    )]
}

/// `25%`
pub(crate) fn percent(value: &str) -> Complaints {
    let digits = value.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) {
        return Vec::new();
    }
    vec![mismatch(
        "a valid percent string must be a numeric string followed by an ending '%'",
        &["1%", "93%"],
        "[0-9]+%",
    )]
}

/// `must be between {low} and {high}, inclusive`
pub(crate) fn between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// A port number.
pub(crate) fn port_number(port: i64) -> Option<String> {
    if (1..=65_535).contains(&port) { None } else { Some(between(1, 65_535)) }
}

/// A user or group id.
pub(crate) fn account_id(id: i64) -> Option<String> {
    if (0..=i64::from(i32::MAX)).contains(&id) { None } else { Some(between(0, i64::from(i32::MAX))) }
}

/// Checks a name, or the beginning of one (`generateName`), against the rule of a kind.
pub(crate) fn check(rule: NameRule, value: &str, prefix: bool) -> Complaints {
    let masked = match value.len() {
        // As upstream: the last two characters give way to one that no rule refuses.
        2.. if prefix && value.ends_with('-') => format!("{}a", value.get(..value.len() - 2).unwrap_or_default()),
        _ => value.to_string(),
    };
    match rule {
        NameRule::Subdomain => dns_subdomain(&masked),
        NameRule::Label => dns_label(&masked),
        NameRule::Label1035 => dns_1035_label(&masked),
        NameRule::PathSegment => path_segment(value, prefix),
        NameRule::IpAddress => addresses::strict_ip(value).into_iter().collect(),
        NameRule::Any => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_good_and_bad() {
        assert!(dns_subdomain("a.b-c.d1").is_empty());
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".a", "ä"] {
            assert_eq!(dns_subdomain(bad).len(), 1, "{bad}");
        }
        assert_eq!(dns_label("a.b"), vec!["must not contain dots"]);
        assert_eq!(dns_1035_label("1a").len(), 1);
        assert!(dns_label("1a").is_empty());
        assert_eq!(dns_label(&"a".repeat(64)), vec!["must be no more than 63 characters"]);
    }

    #[test]
    fn label_keys() {
        assert!(qualified_name("example.com/My_Name").is_empty());
        assert_eq!(qualified_name("/x"), vec!["prefix part must be non-empty"]);
        assert!(qualified_name("a/b/c").iter().all(|text| text.ends_with("(e.g. 'example.com/MyName')")));
        assert_eq!(qualified_name("").len(), 2);
        assert!(label_value("").is_empty());
        assert_eq!(label_value("a b").len(), 1);
    }

    #[test]
    fn ports_and_keys() {
        assert!(port_name("http-1").is_empty());
        assert_eq!(port_name("80"), vec!["must contain at least one letter (a-z)"]);
        assert_eq!(config_key(".."), vec!["must not be '..'"]);
        assert!(percent("25%").is_empty());
        assert!(!percent("%").is_empty());
    }
}
