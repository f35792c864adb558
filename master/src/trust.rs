//! Whom the API server believes: the CAs of the moment, exchanged while connections come and go.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context as _, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

/// Verifies clients of the API server, and kubelets that it connects to, by the same CAs.
#[derive(Debug)]
pub struct Trust {
    provider: Arc<CryptoProvider>,
    current: RwLock<Verifiers>,
}

#[derive(Debug, Clone)]
struct Verifiers {
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
}

impl Trust {
    pub fn new(provider: Arc<CryptoProvider>, bundle_pem: &str) -> Result<Arc<Self>> {
        let current = RwLock::new(verifiers(&provider, bundle_pem)?);
        Ok(Arc::new(Trust { provider, current }))
    }

    /// Believes these from the next handshake on.
    pub fn set(&self, bundle_pem: &str) -> Result<()> {
        let verifiers = verifiers(&self.provider, bundle_pem)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = verifiers;
        Ok(())
    }

    fn get(&self) -> Verifiers {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The CAs of a bundle as roots.
pub fn roots(bundle_pem: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle_pem.as_bytes()) {
        roots.add(certificate.context("a CA is not PEM")?).context("a CA is none")?;
    }
    Ok(roots)
}

fn verifiers(provider: &Arc<CryptoProvider>, bundle_pem: &str) -> Result<Verifiers> {
    let roots = Arc::new(roots(bundle_pem)?);
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
    let servers = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
    Ok(Verifiers {
        // A client certificate is optional; one that no CA signed ends the handshake.
        clients: clients.allow_unauthenticated().build().context("the CA cannot verify clients")?,
        servers: servers.build().context("the CA cannot verify kubelets")?,
    })
}

impl ClientCertVerifier for Trust {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: clients are not to leave their certificate out because they cannot tell that we know its CA.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.get().clients.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.get().clients.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.get().clients.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.get().clients.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.get().servers.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.get().servers.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.get().servers.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.get().servers.supported_verify_schemes()
    }
}
