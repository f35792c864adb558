//! TLS without verification: a probe asks whether a server answers, not who it is (upstream does the same).

use std::sync::{Arc, LazyLock};

use rustls::crypto::ring;
use rustls::{ClientConfig, Error};
use tokio_rustls::TlsConnector;

static CONFIG: LazyLock<Result<Arc<ClientConfig>, Error>> = LazyLock::new(|| {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifiers::any_server(Arc::clone(&provider));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
});

/// A connector that accepts any certificate.
pub(super) fn connector() -> Result<TlsConnector, Error> {
    CONFIG.clone().map(TlsConnector::from)
}
