//! Verifiers of TLS that are told by a closure whose certificate is believed: everybody's, that of CAs which change, or whatever was shown.
//! That the peer has the key of its certificate is always checked, by the algorithms of the crypto provider.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// What a server shows, and the name that it was asked for by.
#[derive(Debug)]
pub struct Server<'a> {
    pub end_entity: &'a CertificateDer<'a>,
    pub intermediates: &'a [CertificateDer<'a>],
    pub name: &'a ServerName<'a>,
    pub ocsp: &'a [u8],
    pub now: UnixTime,
}

/// What a client shows.
#[derive(Debug)]
pub struct Client<'a> {
    pub end_entity: &'a CertificateDer<'a>,
    pub intermediates: &'a [CertificateDer<'a>],
    pub now: UnixTime,
}

/// Verifies servers as `believes` says of each.
pub fn servers(
    provider: Arc<CryptoProvider>,
    believes: impl Fn(&Server<'_>) -> Result<ServerCertVerified, Error> + Send + Sync + 'static,
) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Verifier { provider, believes })
}

/// Believes every server.
#[must_use]
pub fn any_server(provider: Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    servers(provider, |_| Ok(ServerCertVerified::assertion()))
}

/// Verifies clients as `believes` says of each; one may also show no certificate. They are not told which CAs are known: a client is not
/// to leave its certificate out because it cannot tell that we know its CA.
pub fn clients(
    provider: Arc<CryptoProvider>,
    believes: impl Fn(&Client<'_>) -> Result<ClientCertVerified, Error> + Send + Sync + 'static,
) -> Arc<dyn ClientCertVerifier> {
    Arc::new(Verifier { provider, believes })
}

struct Verifier<F> {
    provider: Arc<CryptoProvider>,
    believes: F,
}

impl<F> fmt::Debug for Verifier<F> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Verifier").finish_non_exhaustive()
    }
}

/// What either verifier does with signatures: the same, in two traits.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl<F: Fn(&Server<'_>) -> Result<ServerCertVerified, Error> + Send + Sync> ServerCertVerifier for Verifier<F> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        (self.believes)(&Server { end_entity, intermediates, name, ocsp, now })
    }

    signatures!();
}

impl<F: Fn(&Client<'_>) -> Result<ClientCertVerified, Error> + Send + Sync> ClientCertVerifier for Verifier<F> {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        (self.believes)(&Client { end_entity, intermediates, now })
    }

    signatures!();
}
