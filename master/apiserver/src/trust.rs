//! Which certificates are believed of servers that users named: webhooks and aggregated API servers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, pem};

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
