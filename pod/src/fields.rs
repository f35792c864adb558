//! The downward API: fields of the pod and resources of its containers as text.

use std::fmt::Write as _;
use std::net::IpAddr;

use api::quantity::Quantity;
use api::resources::ResourceList;
use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};

/// What the pod object does not know itself.
#[derive(Clone, Debug, Default)]
pub struct FieldFacts {
    /// The node's addresses, primary first.
    pub host_ips: Vec<IpAddr>,
    /// The pod's addresses, primary first.
    pub pod_ips: Vec<IpAddr>,
    /// What the node can give: the value of a limit that is not set.
    pub allocatable: ResourceList,
}

/// Why a field has no value. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// There is no such field.
    #[error("unsupported fieldPath: {0}")]
    Unsupported(String),
    /// The field has no parts.
    #[error("fieldPath {0:?} does not support subscript")]
    Subscript(String),
    /// There is no such resource.
    #[error("unsupported container resource : {0}")]
    Resource(String),
    /// There is no such container.
    #[error("container {0} not found")]
    Container(String),
    /// The divisor is not a quantity.
    #[error("invalid divisor {0:?}")]
    Divisor(String),
}

/// The value of a `fieldRef`.
///
/// # Errors
/// When the path is not one of the downward API.
pub fn field(pod: &Pod, selector: &ObjectFieldSelector, facts: &FieldFacts) -> Result<String, FieldError> {
    let path = selector.field_path.as_str();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.annotations" => &pod.metadata.annotations,
            "metadata.labels" => &pod.metadata.labels,
            _ => return Err(FieldError::Subscript(map.to_owned())),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |field: Option<&String>| Ok(field.cloned().unwrap_or_default());
    match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => Ok(lines(meta.labels.iter().flatten())),
        "metadata.annotations" => Ok(lines(meta.annotations.iter().flatten())),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" => Ok(facts.host_ips.first().map(ToString::to_string).unwrap_or_default()),
        "status.hostIPs" => Ok(joined(&facts.host_ips)),
        "status.podIP" => Ok(facts.pod_ips.first().map(ToString::to_string).unwrap_or_default()),
        "status.podIPs" => Ok(joined(&facts.pod_ips)),
        _ => Err(FieldError::Unsupported(path.to_owned())),
    }
}

fn joined(ips: &[IpAddr]) -> String {
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// A map as the downward API writes it: `key="value"` lines, sorted.
fn lines<'a>(map: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    map.map(|(key, value)| format!("{key}={}", quoted(value))).collect::<Vec<_>>().join("\n")
}

/// As Go quotes (`%q`): who reads it may well unquote it by Go's rules.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            letter if is_printed(letter) => out.push(letter),
            letter => {
                let code = u32::from(letter);
                let _ = match code {
                    ..0x80 => write!(out, "\\x{code:02x}"),
                    0x80..0x1_0000 => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push('"');
    out
}

/// Letters, marks, numbers, punctuation, symbols and the space. Rust escapes marks that join the letter before them, which Go prints.
fn is_printed(letter: char) -> bool {
    let is_mark = matches!(letter, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20f0}'
        | '\u{3099}' | '\u{309a}' | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}' | '\u{e0100}'..='\u{e01ef}');
    is_mark || letter == '\'' || letter.is_alphanumeric() || letter.escape_debug().eq([letter])
}

/// The value of a `resourceFieldRef`; `container` is the one that asks, for selectors that name none.
///
/// # Errors
/// When the selector names a container, resource or divisor that there is not.
pub fn resource(
    pod: &Pod,
    container: Option<&Container>,
    selector: &ResourceFieldSelector,
    facts: &FieldFacts,
) -> Result<String, FieldError> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let found = named.and_then(|name| api::pod::container(pod.spec.as_ref()?, name));
    let container = match (named, &found) {
        (Some(name), None) => return Err(FieldError::Container(name.to_owned())),
        (_, Some(found)) => &**found,
        (None, None) => container.ok_or_else(|| FieldError::Container(String::new()))?,
    };
    let divisor = match &selector.divisor {
        Some(divisor) => Quantity::read(divisor).map_err(|_| FieldError::Divisor(divisor.0.clone()))?,
        None => Quantity::ZERO,
    };
    let unsupported = || FieldError::Resource(selector.resource.clone());
    let (list, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-") {
        return Err(unsupported());
    }
    let resources = match &pod.spec {
        Some(spec) => api::resources::in_effect(spec, container),
        None => container.resources.clone().unwrap_or_default(),
    };
    let read = |list| api::resources::read(list).get(name).copied().filter(|quantity| !quantity.is_zero());
    let quantity = match list {
        // What a node has of huge pages is nobody's limit (`MergeContainerResourceLimits`).
        "limits" => read(resources.limits.as_ref())
            .or_else(|| facts.allocatable.get(name).filter(|_| !name.starts_with("hugepages-")).copied()),
        "requests" => read(resources.requests.as_ref()),
        _ => return Err(unsupported()),
    };
    Ok(quantity.unwrap_or_default().divided_up(&divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "u", "labels": {"b": "2", "a": "x\"y"}},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "c", "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}}]}
        }))
        .unwrap()
    }

    #[test]
    fn fields() {
        let facts =
            FieldFacts { pod_ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()], ..Default::default() };
        let value = |path: &str| {
            let selector = ObjectFieldSelector { field_path: path.into(), api_version: None };
            field(&pod(), &selector, &facts).map_err(|error| error.to_string())
        };
        assert_eq!(value("metadata.name").unwrap(), "web");
        assert_eq!(value("metadata.labels").unwrap(), "a=\"x\\\"y\"\nb=\"2\"");
        assert_eq!(value("metadata.labels['b']").unwrap(), "2");
        assert_eq!(value("metadata.annotations['none']").unwrap(), "");
        assert_eq!(value("status.podIPs").unwrap(), "10.0.0.1,fd00::1");
        assert_eq!(value("spec.nodeName").unwrap(), "n1");
        assert_eq!(value("spec.x").unwrap_err(), "unsupported fieldPath: spec.x");
    }

    #[test]
    fn text_is_quoted_as_go_does() {
        let cases = [
            ("a \"b\" \\ 'c'", r#""a \"b\" \\ 'c'""#),
            ("\n\t\r\x07\x1b\0\x7f", r#""\n\t\r\a\x1b\x00\x7f""#),
            ("é e\u{301} ❤\u{fe0f} 日本", "\"é e\u{301} ❤\u{fe0f} 日本\""),
            ("\u{a0}\u{200d}\u{ad}\u{e0001}", r#""\u00a0\u200d\u00ad\U000e0001""#),
        ];
        for (text, expected) in cases {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn resources() {
        let quantity = |text: &str| k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.into());
        let allocatable = api::resources::read(Some(
            &[("cpu".to_owned(), quantity("4")), ("hugepages-2Mi".to_owned(), quantity("64Mi"))].into(),
        ));
        let facts = FieldFacts { allocatable, ..FieldFacts::default() };
        let value = |name: &str, divisor: &str| {
            let selector =
                serde_json::from_value(serde_json::json!({"containerName": "c", "resource": name, "divisor": divisor}))
                    .unwrap();
            resource(&pod(), None, &selector, &facts).map_err(|error| error.to_string())
        };
        assert_eq!(value("requests.cpu", "1m").unwrap(), "250");
        assert_eq!(value("requests.cpu", "0").unwrap(), "1");
        assert_eq!(value("limits.cpu", "1").unwrap(), "4");
        assert_eq!(value("limits.memory", "1Mi").unwrap(), "1024");
        assert_eq!(value("limits.hugepages-2Mi", "1").unwrap(), "0");
        assert_eq!(value("requests.ephemeral-storage", "1").unwrap(), "0");
        assert_eq!(value("limits.gpu", "1").unwrap_err(), "unsupported container resource : limits.gpu");
    }
}
