//! The CA of a stock cluster: ConfigMap `kube-public/cluster-info`, which kubeadm lets anyone read.
//!
//! What comes back is believed only as far as its hash is the pinned one; the ConfigMap's own signatures add nothing to
//! that.

use std::sync::Arc;

use base64::Engine;
use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use super::options::CaHash;
use super::pin;
use crate::client::{self, Credentials, Server};
use crate::identity::certificates;

/// The published CA with that hash, if there is one.
pub(super) async fn published(
    server: &Server,
    config: Arc<ClientConfig>,
    expected: CaHash,
) -> Option<CertificateDer<'static>> {
    let (client, _) = client::new(&server.clone().into(), config, &Credentials::Certificate).ok()?;
    let request = Request::get("/api/v1/namespaces/kube-public/configmaps/cluster-info").body(Vec::new()).ok()?;
    let map: ConfigMap = client.request(request).await.ok()?;
    pin::find(&authorities(map.data?.get("kubeconfig")?)?, expected)
}

/// The CAs in a kubeconfig.
fn authorities(kubeconfig: &str) -> Option<Vec<CertificateDer<'static>>> {
    let document: Value = serde_saphyr::from_str(kubeconfig).ok()?;
    let mut found = Vec::new();
    for cluster in document.get("clusters")?.as_array()? {
        let data = cluster.pointer("/cluster/certificate-authority-data")?.as_str()?;
        let pem = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
        found.extend(certificates("cluster-info", &pem).ok()?);
    }
    Some(found)
}
