//! What every cluster begins with: written through the API at each start, so that it is there and up to date.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};

use crate::data_dir::DataDir;
use crate::pki::Pki;
use crate::settings::Settings;
use crate::{api, join, kubeconfig, leaves, token};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const PRIORITY_CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";

/// Makes and updates what the API server itself does not: roles, priority classes, what joining machines read.
pub async fn run(client: &Client, settings: &Settings, pki: &Pki, dir: &DataDir) -> Result<()> {
    roles(client).await?;
    priority_classes(client).await?;
    published_authorities(client, settings, pki).await?;
    kubelet_config(client, settings).await?;
    pending_token(client, dir).await
}

async fn roles(client: &Client) -> Result<()> {
    for default in auth::default_objects()? {
        let collection = match default.namespace.as_str() {
            "" => format!("{RBAC}/{}", default.resource),
            namespace => format!("{RBAC}/namespaces/{namespace}/{}", default.resource),
        };
        ensure(client, &collection, &default.name, &default.object, auth::reconcile).await?;
    }
    Ok(())
}

/// The classes of what keeps nodes and the cluster going (`pkg/apis/scheduling/v1/helpers.go`).
async fn priority_classes(client: &Client) -> Result<()> {
    let classes = [
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ];
    for (name, value, description) in classes {
        let class = json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": { "name": name },
            "value": value,
            "description": description,
        });
        api::create(client, PRIORITY_CLASSES, &class).await?;
    }
    Ok(())
}

/// Where the cluster is and what it is recognised by, for joining machines and for nodes, which follow it; and whom aggregated API servers
/// believe. Neither is an administrator's to change.
pub async fn published_authorities(client: &Client, settings: &Settings, pki: &Pki) -> Result<()> {
    let server = format!("https://{}", settings.endpoint());
    let cluster = kubeconfig::cluster_info(&server, &pki.authorities.bundle_pem())?;
    let maps = [
        ("kube-public", "cluster-info", json!({ "kubeconfig": cluster })),
        ("kube-system", "extension-apiserver-authentication", extension_authentication(pki)),
    ];
    for (namespace, name, data) in maps {
        let (collection, map) = config_map(namespace, name, &data);
        ensure(client, &collection, name, &map, |old, new| with(old, new, &["data"])).await?;
    }
    Ok(())
}

/// How nodes are configured, at first: what an administrator changed stays.
async fn kubelet_config(client: &Client, settings: &Settings) -> Result<()> {
    let data = json!({ "kubelet": kubelet_configuration(settings.dns_service_ip()?)? });
    let (collection, map) = config_map("kube-system", "kubelet-config", &data);
    api::create(client, &collection, &map).await.map(drop)
}

/// A ConfigMap, and the collection that it belongs to.
fn config_map(namespace: &str, name: &str, data: &Value) -> (String, Value) {
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": namespace },
        "data": data,
    });
    (format!("/api/v1/namespaces/{namespace}/configmaps"), map)
}

/// Whom an aggregated API server believes: clients with certificates, and the front proxy, which says who asks
/// (`pkg/controlplane/controller/clusterauthenticationtrust`).
fn extension_authentication(pki: &Pki) -> Value {
    let list = |items: &[&str]| json!(items).to_string();
    json!({
        "client-ca-file": pki.authorities.bundle_pem(),
        "requestheader-allowed-names": list(&[leaves::PROXY_CLIENT]),
        "requestheader-client-ca-file": pki.proxy_ca.certificate_pem,
        "requestheader-extra-headers-prefix": list(&["X-Remote-Extra-"]),
        "requestheader-group-headers": list(&["X-Remote-Group"]),
        "requestheader-uid-headers": list(&["X-Remote-Uid"]),
        "requestheader-username-headers": list(&["X-Remote-User"]),
    })
}

/// A `KubeletConfiguration` as kubeadm hands it to nodes: certificates only, nothing anonymous.
fn kubelet_configuration(dns: IpAddr) -> Result<String> {
    let configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": "/etc/kubernetes/pki/ca.crt" },
        },
        "authorization": { "mode": "Webhook" },
        "clusterDNS": [dns],
        "clusterDomain": "cluster.local",
        "rotateCertificates": true,
        "serverTLSBootstrap": true,
    });
    Ok(serde_saphyr::to_string(&configuration)?)
}

/// Stores the token that `master init` printed before anything served.
async fn pending_token(client: &Client, dir: &DataDir) -> Result<()> {
    if let Some(pending) = join::pending_token(dir, Timestamp::now())? {
        let path = format!("/api/v1/namespaces/kube-system/secrets/{}{}", auth::BOOTSTRAP_SECRET_PREFIX, pending.id());
        if api::get(client, &path).await?.is_none() {
            token::store(client, &pending).await?;
        }
    }
    match std::fs::remove_file(dir.pending_token()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.pending_token().display()))
        }
        _ => Ok(()),
    }
}

/// Creates an object, or writes what `merge` makes of the existing and the wanted one.
async fn ensure(
    client: &Client,
    collection: &str,
    name: &str,
    wanted: &Value,
    merge: impl Fn(&Value, &Value) -> Option<Value>,
) -> Result<()> {
    let path = format!("{collection}/{name}");
    match api::get(client, &path).await? {
        None => api::create(client, collection, wanted).await.map(drop),
        Some(existing) => match merge(&existing, wanted) {
            Some(merged) => api::replace(client, &path, &merged).await,
            None => Ok(()),
        },
    }
}

/// The existing object with some fields as wanted; `None` when they are so already. Defaults that the API server filled in
/// do not count as a difference.
fn with(existing: &Value, wanted: &Value, fields: &[&str]) -> Option<Value> {
    if fields.iter().all(|field| contains(&existing[*field], &wanted[*field])) {
        return None;
    }
    let mut merged = existing.clone();
    let object = merged.as_object_mut()?;
    for field in fields {
        object.insert((*field).to_owned(), wanted[*field].clone());
    }
    Some(merged)
}

fn contains(existing: &Value, wanted: &Value) -> bool {
    match (existing, wanted) {
        (Value::Object(existing), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| existing.get(key).is_some_and(|found| contains(found, value)))
        }
        (Value::Array(existing), Value::Array(wanted)) => {
            existing.len() == wanted.len() && existing.iter().zip(wanted).all(|(found, value)| contains(found, value))
        }
        _ => existing == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_in_default_is_no_difference() {
        let wanted = json!({ "ports": [{ "port": 1 }], "data": { "a": "b" } });
        let filled =
            json!({ "ports": [{ "port": 1, "protocol": "TCP" }], "data": { "a": "b" }, "metadata": { "uid": "u" } });
        assert_eq!(with(&filled, &wanted, &["ports", "data"]), None);
        let changed = json!({ "ports": [{ "port": 2 }], "data": { "a": "b" }, "metadata": { "uid": "u" } });
        let merged = with(&changed, &wanted, &["ports", "data"]).unwrap();
        assert_eq!(merged, json!({ "ports": [{ "port": 1 }], "data": { "a": "b" }, "metadata": { "uid": "u" } }));
    }

    #[test]
    fn kubelets_get_a_configuration_that_they_can_read() {
        let text = kubelet_configuration(IpAddr::from([10, 96, 0, 10])).unwrap();
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read["clusterDNS"], json!(["10.96.0.10"]));
        assert_eq!(read["authentication"]["anonymous"]["enabled"], json!(false));
    }
}
