//! Whom this node believes: the cluster's CAs. They are followed while the node runs, so that a cluster's CA can be replaced
//! without anybody touching its nodes.
//!
//! The source is ConfigMap `kube-public/cluster-info`. Keelson's master lets nodes watch it; kubeadm lets anyone get it, so that elsewhere
//! it is asked for now and then. What comes is believed as far as the connection is by which it came, and once the API
//! server can be verified by it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::{Error, certificates, to_pem};
use crate::client::watch::{Change, Collection, describe, follow};
use crate::client::{self, Credentials, Servers, is_refused, tls};
use crate::config::write_atomic;

const COLLECTION: &str = "/api/v1/namespaces/kube-public/configmaps";
/// How often it is asked for where it cannot be watched.
const POLL: Duration = Duration::from_secs(600);
/// How long until CAs that could not be used are tried again.
const AGAIN: Duration = Duration::from_secs(15);

/// CAs; the first is the one that signs.
pub type Roots = Arc<[CertificateDer<'static>]>;

/// The CAs that a cluster publishes, where it does.
///
/// # Errors
/// They may not be asked for, or there is no answer.
pub async fn ask(client: &kube::Client) -> Result<Option<Vec<CertificateDer<'static>>>, kube::Error> {
    let request = Request::get(format!("{COLLECTION}/cluster-info")).body(Vec::new());
    let map: ConfigMap = client.request(request.map_err(kube::Error::HttpError)?).await?;
    Ok(map.data.and_then(|data| published(data.get("kubeconfig")?)))
}

/// Reads the CAs of a kubeconfig, as in `cluster-info`.
fn published(kubeconfig: &str) -> Option<Vec<CertificateDer<'static>>> {
    let document: Value = serde_saphyr::from_str(kubeconfig).ok()?;
    let mut found = Vec::new();
    for cluster in document.get("clusters")?.as_array()? {
        let data = cluster.pointer("/cluster/certificate-authority-data")?.as_str()?;
        let pem = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
        found.extend(certificates("cluster-info", &pem).ok()?);
    }
    Some(found)
}

/// Follows the cluster's CAs.
pub struct Following {
    /// The node's own client.
    pub client: kube::Client,
    /// The API servers, one of which the CAs have to verify.
    pub servers: Servers,
    /// Where they are stored.
    pub path: PathBuf,
    /// Where they are published; the initial value is the stored one.
    pub current: watch::Sender<Roots>,
}

/// What is looked at of the ConfigMap.
#[derive(Debug, Clone, Deserialize)]
struct Info {
    data: Option<InfoData>,
}

#[derive(Debug, Clone, Deserialize)]
struct InfoData {
    kubeconfig: Option<String>,
}

impl Following {
    /// Runs until it is dropped.
    pub async fn run(self) {
        while let Err(error) = ask(&self.client).await {
            if is_refused(&error) {
                return self.poll().await;
            }
            tracing::debug!(error = %describe(&error), "cluster-info cannot be read yet");
            tokio::time::sleep(AGAIN).await;
        }
        let collection = Collection::all(COLLECTION).fields("metadata.name=cluster-info");
        let mut changes = follow::<Info>(self.client.clone(), collection);
        let mut wanted = None;
        while let Some(info) = self.next(&mut changes, wanted.is_some()).await {
            wanted = info.or(wanted);
            if let Some(roots) = &wanted
                && self.adopt(roots).await
            {
                wanted = None;
            }
        }
    }

    /// The CAs of the next change; `Some(None)` when it has none, or when it is time to try again.
    async fn next(
        &self,
        changes: &mut mpsc::Receiver<Change<Info>>,
        again: bool,
    ) -> Option<Option<Vec<CertificateDer<'static>>>> {
        let pause = if again { AGAIN } else { Duration::MAX };
        // Cancel-safe: a receiver keeps what was not received.
        let Ok(change) = tokio::time::timeout(pause, changes.recv()).await else { return Some(None) };
        let info = match change? {
            Change::Replaced(items) => items.into_iter().next(),
            Change::Applied(item) => Some(item),
            Change::Deleted(_) => None,
        };
        Some(info.and_then(|info| published(&info.data?.kubeconfig?)))
    }

    /// Asks as anyone.
    async fn poll(&self) {
        loop {
            let roots = self.current.borrow().clone();
            if let Ok(anyone) = self.anyone(&roots)
                && let Ok(Some(roots)) = ask(&anyone).await
            {
                self.adopt(&roots).await;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A client without a name that believes `roots` only.
    fn anyone(&self, roots: &[CertificateDer<'static>]) -> anyhow::Result<kube::Client> {
        Ok(client::new(&self.servers, tls::client_config(roots, None)?, &Credentials::Certificate)?.0)
    }

    /// Believes these from now on, if the API server can be verified by them. Whether that is settled.
    async fn adopt(&self, roots: &[CertificateDer<'static>]) -> bool {
        if roots.is_empty() || **self.current.borrow() == *roots {
            return true;
        }
        match self.verify_and_store(roots).await {
            Ok(()) => {
                tracing::info!(count = roots.len(), "the cluster's CAs are others now");
                self.current.send_replace(roots.into());
                true
            }
            Err(error) => {
                tracing::warn!(error = %format_args!("{error:#}"), "the cluster's CAs have changed, but cannot be used; keeping ours");
                false
            }
        }
    }

    async fn verify_and_store(&self, roots: &[CertificateDer<'static>]) -> anyhow::Result<()> {
        // What it answers does not matter: it was verified then.
        self.anyone(roots)?.send(Request::get("/version").body(Body::empty())?).await?;
        let pem: String = roots.iter().map(to_pem).collect();
        let path = self.path.clone();
        write_atomic(&self.path, pem.as_bytes(), 0o644).map_err(|source| Error::File { path, source })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::TestCa;
    use super::*;

    #[test]
    fn all_cas_of_a_bundle_are_read_in_their_order() {
        let (new, old) = (TestCa::new("new"), TestCa::new("old"));
        let bundle = format!("{}{}", to_pem(&new.der), to_pem(&old.der));
        let data = base64::engine::general_purpose::STANDARD.encode(bundle);
        let kubeconfig = serde_json::json!({"clusters": [{"cluster": {"certificate-authority-data": data}}]});
        assert_eq!(published(&kubeconfig.to_string()), Some(vec![new.der, old.der]));
        assert_eq!(published("nonsense"), None);
    }
}
