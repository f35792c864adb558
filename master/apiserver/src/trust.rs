//! Which certificates are believed of servers that users named: webhooks and aggregated API servers.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Why a `caBundle` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    #[error("the CA bundle is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("the CA bundle is not PEM: {0}")]
    Pem(#[from] pem::Error),
    #[error("the CA bundle has a certificate that cannot be read: {0}")]
    Certificate(#[from] rustls::Error),
}

/// The roots of a `caBundle` (PEM in base64); those of this machine where it is empty.
pub(crate) fn roots(bundle: &str) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    if bundle.is_empty() {
        // One that cannot be read does not take the others away.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    }
    for certificate in CertificateDer::pem_slice_iter(&STANDARD.decode(bundle)?) {
        roots.add(certificate?)?;
    }
    Ok(roots)
}

/// Believes every certificate (`insecureSkipTLSVerify`, pods through a proxy), but not that somebody has the key of another's.
#[derive(Debug)]
pub(crate) struct Unverified(pub Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
