//! Users whom a front proxy has authenticated (`apiserver/pkg/authentication/request/headerrequest`).

use rustls_pki_types::CertificateDer;

use crate::{Refusal, UserInfo, impersonation, x509};

/// The name that the certificate of a front proxy has (`--requestheader-allowed-names`).
pub const NAME: &str = "front-proxy-client";
const PREFIX: &str = "x-remote-";

/// Whom `X-Remote-*` headers name; `None` where they name nobody, or the certificate is none that may say so. The TLS layer has
/// verified it against the front proxies' own CA. `headers` are names in lower case with their values.
pub fn user<'a>(
    certificate: &CertificateDer<'_>,
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<Option<UserInfo>, Refusal> {
    if x509::user(certificate).is_none_or(|proxy| proxy.username != NAME) {
        return Ok(None);
    }
    let user = impersonation::read(PREFIX, headers)?;
    Ok((!user.username.is_empty()).then(|| impersonation::with_everyone(user)))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use rustls_pki_types::CertificateDer;

    use super::{NAME, user};

    fn certificate(name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn only_the_front_proxy_says_whom_it_speaks_for() {
        let headers = [
            ("x-remote-user", "jane"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-example.org%2fkey", "v"),
            ("x-remote-uid", "1"),
            ("accept", "*/*"),
        ]
        .map(|(name, value)| (name, value.as_bytes()));
        let jane = user(&certificate(NAME), headers).unwrap().unwrap();
        assert_eq!((jane.username.as_str(), jane.uid.as_str()), ("jane", "1"));
        assert_eq!(jane.groups, ["a", "b", "system:authenticated"]);
        assert_eq!(jane.extra["example.org/key"], ["v"]);
        assert_eq!(user(&certificate("somebody"), headers), Ok(None));
        assert_eq!(user(&certificate(NAME), [("x-remote-group", b"system:masters".as_slice())]), Ok(None));
        let unreadable = [("x-remote-user", b"jane".as_slice()), ("x-remote-group", b"\xff")];
        assert_eq!(user(&certificate(NAME), unreadable).unwrap_err().code, 400);
    }
}
