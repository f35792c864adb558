//! The CA of a stock cluster: ConfigMap `kube-public/cluster-info`, which kubeadm lets anyone read.
//!
//! What comes back is believed only as far as its hash is the pinned one; the ConfigMap's own signatures add nothing to
//! that.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;

use super::options::CaHash;
use super::pin;
use crate::client::watch::describe;
use crate::client::{self, Credentials, Server};
use crate::identity::trust;

/// The published CA with that hash, if there is one; an error says why nothing can be read.
pub(super) async fn published(
    server: &Server,
    config: Arc<ClientConfig>,
    expected: CaHash,
) -> Result<Option<CertificateDer<'static>>, String> {
    let made = client::new(&server.clone().into(), config, &Credentials::Certificate);
    let (client, _) = made.map_err(|error| describe(&error))?;
    let found = trust::ask(&client).await.map_err(|error| describe(&error))?;
    Ok(found.and_then(|found| pin::find(&found, expected)))
}
