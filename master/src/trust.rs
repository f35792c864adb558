//! Whom the API server believes: the CAs of the moment, exchanged while connections come and go.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context as _, Result};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

/// Verifies clients of the API server, and kubelets that it connects to, by the same CAs; and front proxies by their own.
#[derive(Debug)]
pub struct Trust {
    provider: Arc<CryptoProvider>,
    current: RwLock<Verifiers>,
    proxies: Arc<dyn ClientCertVerifier>,
}

#[derive(Debug, Clone)]
struct Verifiers {
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
}

impl Trust {
    pub fn new(provider: Arc<CryptoProvider>, bundle_pem: &str, proxy_ca_pem: &str) -> Result<Arc<Self>> {
        let current = RwLock::new(verifiers(&provider, bundle_pem)?);
        let proxies =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots(proxy_ca_pem)?), Arc::clone(&provider));
        let proxies = proxies.build().context("the front proxies' CA cannot verify them")?;
        Ok(Arc::new(Trust { provider, current, proxies }))
    }

    /// Believes these from the next handshake on.
    pub fn set(&self, bundle_pem: &str) -> Result<()> {
        let verifiers = verifiers(&self.provider, bundle_pem)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = verifiers;
        Ok(())
    }

    /// Verifies clients of the API server, front proxies among them.
    pub fn clients(self: &Arc<Self>) -> Arc<dyn ClientCertVerifier> {
        let trust = Arc::clone(self);
        verifiers::clients(Arc::clone(&self.provider), move |client| {
            let by = |verifier: &dyn ClientCertVerifier| {
                verifier.verify_client_cert(client.end_entity, client.intermediates, client.now)
            };
            by(trust.get().clients.as_ref()).or_else(|error| by(trust.proxies.as_ref()).map_err(|_| error))
        })
    }

    /// Verifies front proxies alone.
    pub fn proxies(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.proxies)
    }

    /// Verifies kubelets.
    pub fn servers(self: &Arc<Self>) -> Arc<dyn ServerCertVerifier> {
        let trust = Arc::clone(self);
        verifiers::servers(Arc::clone(&self.provider), move |it| {
            trust.get().servers.verify_server_cert(it.end_entity, it.intermediates, it.name, it.ocsp, it.now)
        })
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
