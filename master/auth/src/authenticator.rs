use std::sync::Arc;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use crate::{BootstrapToken, Facts, Refusal, ServiceAccountTokens, UserInfo, x509};

/// What anyone may ask, exactly these paths (the `anonymous` conditions of an AuthenticationConfiguration): health, version, and what
/// `kubeadm join` reads before it believes anyone, by the signatures in it.
const OPEN_PATHS: [&str; 5] =
    ["/healthz", "/livez", "/readyz", "/version", "/api/v1/namespaces/kube-public/configmaps/cluster-info"];

/// What a request brings that may say who sent it.
#[derive(Default, Clone, Copy)]
pub struct Credentials<'a> {
    /// The leaf certificate; the TLS layer has verified its chain against the cluster CA.
    pub client_certificate: Option<&'a CertificateDer<'a>>,
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
}

/// Who sent a request, and for whom the credential was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    pub user: UserInfo,
    /// The audiences, of those asked for, that a token is good for.
    pub audiences: Vec<String>,
}

/// Why a request has no user. The client sees a bare 401; the text is for the log.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AuthenticationError {
    #[error("no credentials")]
    Missing,
    #[error("the client certificate has no common name")]
    NamelessCertificate,
    #[error("the Authorization header is not of the form \"Bearer TOKEN\"")]
    NotBearer,
    #[error("invalid bearer token: {0}")]
    InvalidToken(String),
}

impl From<AuthenticationError> for Refusal {
    fn from(_: AuthenticationError) -> Self {
        Refusal::unauthorized()
    }
}

/// Tells who sent a request: client certificate first, then bearer token, as upstream orders them.
pub struct Authenticator {
    facts: Arc<Facts>,
    tokens: Arc<ServiceAccountTokens>,
}

impl Authenticator {
    pub fn new(facts: Arc<Facts>, tokens: Arc<ServiceAccountTokens>) -> Self {
        Authenticator { facts, tokens }
    }

    /// The issuer behind this authenticator, for TokenRequest and the OpenID documents.
    pub fn tokens(&self) -> &ServiceAccountTokens {
        &self.tokens
    }

    /// The user of a request to `path`. Without credentials only `OPEN_PATHS` are open.
    pub fn authenticate(
        &self,
        credentials: Credentials<'_>,
        path: &str,
        now: Timestamp,
    ) -> Result<UserInfo, AuthenticationError> {
        if let Some(certificate) = credentials.client_certificate {
            return x509::user(certificate).ok_or(AuthenticationError::NamelessCertificate);
        }
        let Some(header) = credentials.authorization else {
            return if OPEN_PATHS.contains(&path) {
                Ok(UserInfo::anonymous())
            } else {
                Err(AuthenticationError::Missing)
            };
        };
        let token = bearer(header).ok_or(AuthenticationError::NotBearer)?;
        Ok(self.authenticate_token(token, &[], now)?.user)
    }

    /// Of the audiences that are asked for, those of the API server itself: what a credential that names none is good for
    /// (`authenticator.WithAudiences`); none where it is good for nobody who asks.
    fn own_audiences(&self, wanted: &[String]) -> Option<Vec<String>> {
        let own = self.tokens.audiences();
        let is_wanted = |audience: &&String| wanted.is_empty() || wanted.contains(audience);
        let audiences: Vec<String> = own.iter().filter(is_wanted).cloned().collect();
        (!audiences.is_empty()).then_some(audiences)
    }

    /// The user of a bearer token; `audiences` empty means the API server's own.
    pub fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Authentication, AuthenticationError> {
        if let Ok((id, secret)) = BootstrapToken::parse(token) {
            let unknown = || AuthenticationError::InvalidToken(format!("no valid bootstrap token {id}"));
            let audiences = self.own_audiences(audiences).ok_or_else(unknown)?;
            let user = self.facts.bootstrap_token(id).and_then(|token| token.authenticate(secret, now));
            return user.map(|user| Authentication { user, audiences }).ok_or_else(unknown);
        }
        if !self.tokens.claims_to_be_ours(token) {
            return Err(AuthenticationError::InvalidToken("of no known kind".to_owned()));
        }
        let (user, audiences) = self
            .tokens
            .authenticate(token, audiences, now)
            .map_err(|error| AuthenticationError::InvalidToken(error.to_string()))?;
        Ok(Authentication { user, audiences })
    }
}

/// The token of `Bearer TOKEN`; the scheme in any case, as upstream.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests;
