//! Fields of a pod as its own containers see them: `fieldRef` and `resourceFieldRef` of environment variables and of downward API
//! volumes (API reference: `ObjectFieldSelector`, `ResourceFieldSelector`).

use std::net::IpAddr;

use api::quantity::Quantity;
use api::resources::{self, ResourceList};
use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};

/// What fields are read from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub pod: &'a Pod,
    /// The node's addresses, primary first.
    pub host_ips: &'a [IpAddr],
    /// The pod's, primary first; empty while it has none.
    pub pod_ips: &'a [IpAddr],
    /// The node's allocatable: the limit of a container that has none.
    pub allocatable: &'a ResourceList,
}

/// A field that a selector names but a pod does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("unsupported container resource : {0}")]
    Resource(String),
    #[error("container {0} not found")]
    Container(String),
}

/// The value of a `fieldRef`. Labels or annotations as a whole are lines of `key="value"`, sorted by key.
///
/// # Errors
/// When there is no such field.
pub fn field(facts: &Facts<'_>, selector: &ObjectFieldSelector) -> Result<String, FieldError> {
    let path = selector.field_path.as_str();
    let (meta, spec) = (&facts.pod.metadata, facts.pod.spec.as_ref());
    let own = |text: Option<&String>| text.cloned().unwrap_or_default();
    let list = |ips: &[IpAddr]| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(IpAddr::to_string).unwrap_or_default();
    Ok(match path {
        "metadata.name" => own(meta.name.as_ref()),
        "metadata.namespace" => own(meta.namespace.as_ref()),
        "metadata.uid" => own(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => own(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => own(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" => first(facts.host_ips),
        "status.hostIPs" => list(facts.host_ips),
        "status.podIP" => first(facts.pod_ips),
        "status.podIPs" => list(facts.pod_ips),
        _ => {
            let (map, key) = subscript(path).ok_or_else(|| FieldError::Field(path.to_owned()))?;
            let values = match map {
                "metadata.labels" => meta.labels.as_ref(),
                "metadata.annotations" => meta.annotations.as_ref(),
                _ => return Err(FieldError::Field(path.to_owned())),
            };
            own(values.and_then(|v| v.get(key)))
        }
    })
}

/// The value of a `resourceFieldRef`, in units of its divisor, rounded up. `own` is the container that holds the reference; the
/// selector may name another (it must, in a volume).
///
/// # Errors
/// When there is no such container or resource.
pub fn resource(facts: &Facts<'_>, own: Option<&Container>, selector: &ResourceFieldSelector) -> Result<String, FieldError> {
    let unknown = || FieldError::Resource(selector.resource.clone());
    let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
    let container = match named {
        Some(name) => facts.pod.spec.as_ref().and_then(|s| api::pod::container(s, name)),
        None => own.map(std::borrow::Cow::Borrowed),
    };
    let container = container.ok_or_else(|| FieldError::Container(named.unwrap_or_default().to_owned()))?;
    let (kind, resource) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let plain = matches!(resource, "cpu" | "memory" | "ephemeral-storage");
    if !plain && !resource.starts_with("hugepages-") {
        return Err(unknown());
    }
    let given = container.resources.as_ref();
    let list = match kind {
        "limits" => resources::read(given.and_then(|r| r.limits.as_ref())),
        "requests" => resources::read(given.and_then(|r| r.requests.as_ref())),
        _ => return Err(unknown()),
    };
    let amount = list.get(resource).filter(|q| !q.is_zero());
    let fallback = if kind == "limits" && plain { facts.allocatable.get(resource) } else { None };
    let amount = amount.or(fallback).copied().unwrap_or(Quantity::ZERO);
    // No divisor, and one of 0, count as 1.
    let divisor = selector.divisor.as_ref().and_then(|d| Quantity::read(d).ok()).unwrap_or(Quantity::ZERO);
    Ok(amount.divided_up(&divisor).to_string())
}

/// `metadata.labels['key']` -> (`metadata.labels`, `key`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

fn lines(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// As Go's `%q` writes it.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "say \"hi\"\n"}, "annotations": {"x/y": "z"}},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}, "requests": {"cpu": "100m"}}},
                {"name": "bare"},
            ]},
        }))
        .unwrap()
    }

    fn read(path: &str) -> Result<String, FieldError> {
        let allocatable = ResourceList::new();
        let pod = pod();
        let (host, own) = (["10.0.0.1".parse().unwrap()], ["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()]);
        let facts = Facts { pod: &pod, host_ips: &host, pod_ips: &own, allocatable: &allocatable };
        field(&facts, &ObjectFieldSelector { field_path: path.into(), api_version: None })
    }

    #[test]
    fn fields_are_those_of_the_api_reference() {
        for (path, value) in [
            ("metadata.name", "p"),
            ("metadata.labels['b']", "2"),
            ("metadata.labels['none']", ""),
            ("metadata.annotations['x/y']", "z"),
            ("metadata.labels", "a=\"say \\\"hi\\\"\\n\"\nb=\"2\""),
            ("spec.nodeName", "n1"),
            ("status.hostIP", "10.0.0.1"),
            ("status.podIP", "10.1.0.2"),
            ("status.podIPs", "10.1.0.2,fd00::2"),
        ] {
            assert_eq!(read(path).as_deref(), Ok(value), "{path}");
        }
        assert_eq!(read("spec.foo").unwrap_err().to_string(), "unsupported fieldPath: spec.foo");
    }

    #[test]
    fn resources_are_rounded_up_and_default_to_the_nodes() {
        let pod = pod();
        let allocatable = ResourceList::from([("cpu".to_owned(), "2".parse().unwrap()), ("memory".to_owned(), "1Gi".parse().unwrap())]);
        let facts = Facts { pod: &pod, host_ips: &[], pod_ips: &[], allocatable: &allocatable };
        let read = |container: &str, name: &str, divisor: &str| {
            let selector: ResourceFieldSelector =
                serde_json::from_value(json!({"containerName": container, "resource": name, "divisor": divisor})).unwrap();
            resource(&facts, None, &selector).map_err(|e| e.to_string())
        };
        assert_eq!(read("c", "limits.cpu", "0").as_deref(), Ok("1"));
        assert_eq!(read("c", "limits.cpu", "1m").as_deref(), Ok("250"));
        assert_eq!(read("c", "limits.memory", "1Mi").as_deref(), Ok("64"));
        assert_eq!(read("c", "requests.memory", "1").as_deref(), Ok("0"));
        assert_eq!(read("bare", "limits.cpu", "1").as_deref(), Ok("2"));
        assert_eq!(read("bare", "limits.memory", "1").as_deref(), Ok("1073741824"));
        assert_eq!(read("c", "limits.foo", "1"), Err("unsupported container resource : limits.foo".into()));
    }
}
