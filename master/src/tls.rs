//! TLS of the API server: what it presents, and how it talks to kubelets.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context as _, Result};
use auth::pki::CertifiedKey;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::{ClientConfig, ServerConfig, SignatureScheme, sign};

use crate::pki::Pki;
use crate::trust::Trust;

/// A certificate that can be exchanged while connections come and go.
#[derive(Debug)]
pub struct Identity {
    current: RwLock<Arc<sign::CertifiedKey>>,
}

impl Identity {
    fn new(chain_pem: &str, pair: &CertifiedKey) -> Result<Arc<Self>> {
        Ok(Arc::new(Identity { current: RwLock::new(read(chain_pem, pair)?) }))
    }

    fn get(&self) -> Arc<sign::CertifiedKey> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, key: Arc<sign::CertifiedKey>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = key;
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<sign::CertifiedKey>> {
        Some(self.get())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<sign::CertifiedKey>> {
        Some(self.get())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Both sides of the API server's TLS.
pub struct Tls {
    pub server: Arc<ServerConfig>,
    /// For `logs`, `exec` and their kin: kubelets must have a certificate of the cluster's CA.
    pub kubelet_client: Arc<ClientConfig>,
    /// What aggregated API servers know the front proxy by.
    pub proxy_client: Arc<Identity>,
    /// Tells such proxies, where they are clients of this server.
    pub front_proxies: Arc<dyn ClientCertVerifier>,
    trust: Arc<Trust>,
    serving: Arc<Identity>,
    client: Arc<Identity>,
}

impl Tls {
    pub fn new(pki: &Pki) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = Trust::new(Arc::clone(&provider), &pki.authorities.bundle_pem(), &pki.proxy_ca.certificate_pem)?;
        let serving = Identity::new(&pki.serving_chain_pem(), &pki.serving)?;
        let client = Identity::new(&pki.kubelet_client.certificate_pem, &pki.kubelet_client)?;
        Ok(Tls {
            server: Arc::new(server_config(&provider, &trust, &serving)?),
            kubelet_client: Arc::new(client_config(&provider, &trust, &client)?),
            proxy_client: Identity::new(&pki.proxy_client.certificate_pem, &pki.proxy_client)?,
            front_proxies: trust.proxies(),
            trust,
            serving,
            client,
        })
    }

    /// Presents renewed certificates and believes new CAs from the next handshake on.
    pub fn renew(&self, pki: &Pki) -> Result<()> {
        self.trust.set(&pki.authorities.bundle_pem())?;
        self.serving.set(read(&pki.serving_chain_pem(), &pki.serving)?);
        self.client.set(read(&pki.kubelet_client.certificate_pem, &pki.kubelet_client)?);
        self.proxy_client.set(read(&pki.proxy_client.certificate_pem, &pki.proxy_client)?);
        Ok(())
    }
}

fn server_config(provider: &Arc<CryptoProvider>, trust: &Arc<Trust>, serving: &Arc<Identity>) -> Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(trust.clients())
        .with_cert_resolver(Arc::clone(serving) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would outlive the trust in its client's CA.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_config(provider: &Arc<CryptoProvider>, trust: &Arc<Trust>, client: &Arc<Identity>) -> Result<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        // Stricter than rustls' own in nothing: it is rustls' own, of the CAs of the moment.
        .dangerous()
        .with_custom_certificate_verifier(trust.servers())
        .with_client_cert_resolver(Arc::clone(client) as Arc<dyn ResolvesClientCert>);
    Ok(config)
}

/// A chain and its key, as TLS presents them.
pub fn read(chain_pem: &str, pair: &CertifiedKey) -> Result<Arc<sign::CertifiedKey>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.reveal().as_bytes()).context("a private key is not PEM")?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).context("a private key is of an unknown kind")?;
    let certified = sign::CertifiedKey::new(chain.context("a certificate is not PEM")?, key);
    certified.keys_match().context("a certificate and its key do not belong together")?;
    Ok(Arc::new(certified))
}
