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

/// The cluster's DNS domain.
pub const DOMAIN: &str = "cluster.local";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const PRIORITY_CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";

/// Makes and updates what the API server itself does not: roles, priority classes, what joining machines read.
pub async fn run(client: &Client, settings: &Settings, pki: &Pki, dir: &DataDir) -> Result<()> {
    roles(client).await?;
    priority_classes(client).await?;
    published_authorities(client, settings, pki).await?;
    kubelet_config(client, settings).await?;
    kubeadm_config(client, settings).await?;
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
        ensure(client, &collection, name, &map, with_data).await?;
    }
    Ok(())
}

/// How nodes are configured, at first: what an administrator changed stays.
async fn kubelet_config(client: &Client, settings: &Settings) -> Result<()> {
    let data = json!({ "kubelet": kubelet_configuration(settings.dns_service_ip()?)? });
    let (collection, map) = config_map("kube-system", "kubelet-config", &data);
    api::create(client, &collection, &map).await.map(drop)
}

/// What `kubeadm join` asks of a cluster beside how its nodes are configured.
async fn kubeadm_config(client: &Client, settings: &Settings) -> Result<()> {
    let data = json!({ "ClusterConfiguration": cluster_configuration(settings)? });
    let (collection, map) = config_map("kube-system", "kubeadm-config", &data);
    ensure(client, &collection, "kubeadm-config", &map, with_data).await
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
        "clusterDomain": DOMAIN,
        "rotateCertificates": true,
        "serverTLSBootstrap": true,
    });
    Ok(serde_saphyr::to_string(&configuration)?)
}

/// What of kubeadm's `ClusterConfiguration` is true of a cluster that it did not make.
fn cluster_configuration(settings: &Settings) -> Result<String> {
    let (version, _) = apiserver::GIT_VERSION.split_once('+').unwrap_or((apiserver::GIT_VERSION, ""));
    let configuration = json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "certificatesDir": "/etc/kubernetes/pki",
        "clusterName": "kubernetes",
        "controlPlaneEndpoint": settings.endpoint().to_string(),
        "kubernetesVersion": version,
        "networking": {
            "dnsDomain": DOMAIN,
            "podSubnet": settings.cluster_cidr,
            "serviceSubnet": settings.service_cidr,
        },
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

/// The existing ConfigMap with the wanted data, and what others keep there (signatures); `None` when it has it already.
fn with_data(existing: &Value, wanted: &Value) -> Option<Value> {
    let data = wanted["data"].as_object()?;
    if data.iter().all(|(key, value)| existing["data"].get(key) == Some(value)) {
        return None;
    }
    let mut merged = existing.clone();
    let kept = merged.as_object_mut()?.entry("data").or_insert_with(|| json!({})).as_object_mut()?;
    kept.extend(data.clone());
    Some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_keep_in_a_map_stays() {
        let wanted = json!({ "data": { "kubeconfig": "new" } });
        let map = |text: &str| json!({ "metadata": { "uid": "u" }, "data": { "kubeconfig": text, "jws": "s" } });
        assert_eq!(with_data(&map("new"), &wanted), None);
        assert_eq!(with_data(&map("old"), &wanted), Some(map("new")));
        let empty = json!({ "metadata": { "uid": "u" } });
        assert_eq!(with_data(&empty, &wanted), Some(json!({ "metadata": { "uid": "u" }, "data": wanted["data"] })));
    }

    #[test]
    fn kubelets_get_a_configuration_that_they_can_read() {
        let text = kubelet_configuration(IpAddr::from([10, 96, 0, 10])).unwrap();
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read["clusterDNS"], json!(["10.96.0.10"]));
        assert_eq!(read["authentication"]["anonymous"]["enabled"], json!(false));
    }
}
