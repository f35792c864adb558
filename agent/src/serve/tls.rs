//! What the server presents, and whose clients it believes: both of the moment.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::Error;
use crate::client::tls;
use crate::config::{Config, serving_tls};
use crate::identity::trust::Roots;
use crate::identity::{Identity, certificates};

/// TLS of the node's server.
pub(super) fn server_config(
    config: &Config,
    certificate: watch::Receiver<Option<Identity>>,
    authorities: watch::Receiver<Roots>,
) -> Result<Arc<ServerConfig>, Error> {
    let file = config.kubelet.authentication.x509.client_ca_file.as_str();
    let authorities = if file.is_empty() { authorities } else { watch::channel(read(Path::new(file))?).1 };
    let bad = |message: String| Error::ClientCa(file.to_owned(), message);
    clients(&authorities.borrow()).map_err(|error| bad(error.to_string()))?;
    let of_the_moment = verifiers::clients(tls::provider(), move |client| {
        clients(&authorities.borrow())?.verify_client_cert(client.end_entity, client.intermediates, client.now)
    });
    let offered = Arc::new(serving_tls::provider(&config.kubelet));
    let mut tls = ServerConfig::builder_with_provider(offered)
        .with_protocol_versions(serving_tls::versions(&config.kubelet))
        .map_err(Error::Tls)?
        .with_client_cert_verifier(of_the_moment)
        .with_cert_resolver(Arc::new(Current(certificate)));
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would skip the check of the client's certificate.
    tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    Ok(Arc::new(tls))
}

fn read(path: &Path) -> Result<Roots, Error> {
    let name = path.display().to_string();
    let bad = |message: String| Error::ClientCa(name.clone(), message);
    let pem = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    Ok(certificates(&name, &pem).map_err(|e| bad(e.to_string()))?.into())
}

/// The serving certificate of this moment.
#[derive(Debug)]
struct Current(watch::Receiver<Option<Identity>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().as_ref().map(|identity| Arc::clone(&identity.certified))
    }
}

/// Verifies clients by these CAs; one without a certificate may have a token.
fn clients(authorities: &Roots) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    for authority in authorities.iter() {
        roots.add(authority.clone())?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}
