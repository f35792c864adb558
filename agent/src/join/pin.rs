//! Trust on the strength of a hash: the API server presents its chain, and the certificate in it whose public key has
//! the given hash becomes the only root from then on.
//!
//! Nothing that was said before that root is verified is believed, but for the wording of errors.

use std::sync::{Arc, Mutex};

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerified;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::discovery;
use super::error::JoinError;
use super::options::CaHash;
use crate::client::{Server, Servers, tls};

/// Finds the CA with the given hash at `server` and verifies the server with it.
///
/// # Errors
/// Nobody there, another CA, other names, or a clock that makes certificates invalid.
pub async fn pin(server: &Server, expected: CaHash) -> Result<CertificateDer<'static>, JoinError> {
    let shown = Arc::default();
    let config = unverified(&shown)?;
    drop(server.connect(Arc::clone(&config)).await.map_err(JoinError::from_connect)?);
    let presented = shown.lock().map(|chain| chain.clone()).unwrap_or_default();
    let ca = match find(&presented, expected) {
        Some(ca) => ca,
        // A stock API server keeps its CA to itself and publishes it in a ConfigMap.
        None => match discovery::published(server, config, expected).await {
            Ok(Some(ca)) => ca,
            Err(message) if !presented.iter().any(is_ca) => {
                return Err(JoinError::HiddenCa { server: server.clone(), message });
            }
            _ => {
                let found = presented.iter().filter_map(hash).collect();
                return Err(JoinError::WrongCa { server: server.clone(), expected, found });
            }
        },
    };
    check_clock(server, &ca)?;
    let verified = tls::client_config(std::slice::from_ref(&ca), None)?;
    server.connect(verified).await.map_err(JoinError::from_connect)?;
    Ok(ca)
}

/// The CA of a cluster with several API servers, and one that answers. Those that do not are told; those that do must all have the CA.
///
/// # Errors
/// As [`pin`] at any of them, or none answers.
pub async fn pin_any(
    servers: &Servers,
    expected: CaHash,
    tell: impl Fn(&str),
) -> Result<(CertificateDer<'static>, Server), JoinError> {
    let (mut found, mut silent) = (None, Vec::new());
    for server in servers.iter() {
        match pin(server, expected).await {
            Ok(ca) => found = found.or(Some((ca, server.clone()))),
            Err(error @ JoinError::Unreachable { .. }) => silent.push(error),
            Err(error) => return Err(error),
        }
    }
    if let Some(found) = found {
        silent.iter().for_each(|error| tell(&format!("warning: {error}")));
        return Ok(found);
    }
    match silent.pop() {
        Some(only) if silent.is_empty() => Err(only),
        last => Err(JoinError::NoMaster { failures: silent.iter().chain(&last).map(ToString::to_string).collect() }),
    }
}

/// The first certificate with that hash. Only CAs count: a leaf that happens to be named is nothing to trust others by.
pub(super) fn find(chain: &[CertificateDer<'static>], expected: CaHash) -> Option<CertificateDer<'static>> {
    chain.iter().find(|der| hash(der) == Some(expected) && is_ca(der)).cloned()
}

fn hash(der: &CertificateDer<'_>) -> Option<CaHash> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(CaHash::of_spki(certificate.public_key().raw))
}

fn is_ca(der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| certificate.is_ca())
}

/// A machine whose clock is far off fails in confusing ways later: name the clock first.
fn check_clock(server: &Server, ca: &CertificateDer<'_>) -> Result<(), JoinError> {
    let Ok((_, certificate)) = X509Certificate::from_der(ca) else { return Ok(()) };
    let validity = certificate.validity();
    let now = crate::identity::now();
    let problem = if now < validity.not_before.timestamp() {
        format!("not valid before {}", utc(validity.not_before.timestamp()))
    } else if now >= validity.not_after.timestamp() {
        format!("expired since {}", utc(validity.not_after.timestamp()))
    } else {
        return Ok(());
    };
    Err(JoinError::Clock { server: server.clone(), now: utc(now), problem })
}

fn utc(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| seconds.to_string(), |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

type Chain = Vec<CertificateDer<'static>>;

/// Accepts any chain and remembers it. Handshake signatures are still checked, so that the chain is the peer's own.
fn unverified(shown: &Arc<Mutex<Chain>>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let shown = Arc::clone(shown);
    let recorder = verifiers::servers(tls::provider(), move |server| {
        if let Ok(mut chain) = shown.lock() {
            let all = std::iter::once(server.end_entity).chain(server.intermediates);
            *chain = all.map(|certificate| certificate.clone().into_owned()).collect();
        }
        Ok(ServerCertVerified::assertion())
    });
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(recorder)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
