//! What the server presents, and whose clients it believes: both of the moment.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;

use super::Error;
use crate::client::tls;
use crate::config::Config;
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
    let clients = Clients { authorities };
    clients.verifier().map_err(|error| bad(error.to_string()))?;
    let mut tls = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(e.to_string()))?
        .with_client_cert_verifier(Arc::new(clients))
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

/// Believes clients of the CAs of this moment; a client without a certificate may have a token.
#[derive(Debug)]
struct Clients {
    authorities: watch::Receiver<Roots>,
}

impl Clients {
    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
        let mut roots = rustls::RootCertStore::empty();
        for authority in self.authorities.borrow().iter() {
            roots.add(authority.clone())?;
        }
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a client is not to leave its certificate out because it cannot tell that we know its CA.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verifier()?.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &tls::provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &tls::provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}
