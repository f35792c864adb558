//! Users from client certificates (`apiserver/pkg/authentication/request/x509.CommonNameUserConversion`).

use base16ct::lower::encode_string;
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{UserInfo, names, pki};

/// Upstream's name for what identifies the credential in `extra`.
pub(crate) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The user that a certificate names: the last CN is the name, every O a group, as Go reads them. The TLS layer has verified
/// the chain; a certificate without a name, or with one that is no text, is nobody.
pub(crate) fn user(certificate: &CertificateDer<'_>) -> Option<UserInfo> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let username = subject.iter_common_name().last()?.as_str().ok()?.to_owned();
    if username.is_empty() || !pki::is_text(subject) {
        return None;
    }
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    if !groups.iter().any(|group| group == names::ALL_AUTHENTICATED) {
        groups.push(names::ALL_AUTHENTICATED.to_owned());
    }
    let fingerprint = encode_string(&Sha256::digest(certificate.as_ref()));
    let extra = [(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={fingerprint}")])].into();
    Some(UserInfo { username, uid: String::new(), groups, extra })
}
