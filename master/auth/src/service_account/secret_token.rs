//! Tokens that are kept in Secrets of type `kubernetes.io/service-account-token`: they have no end of their own, and are good
//! while their Secret holds them and their ServiceAccount exists (`pkg/serviceaccount/legacy.go`).

use serde::{Deserialize, Serialize};

use super::{ServiceAccountError, ServiceAccountTokens};
use crate::facts::Kind;
use crate::{KeyError, UserInfo, jwt};

/// Who issues them (`LegacyIssuer`).
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
    sub: String,
}

impl ServiceAccountTokens {
    /// The token of a ServiceAccount that a Secret of its namespace is to hold.
    pub fn secret_token(&self, namespace: &str, account: &str, uid: &str, secret: &str) -> Result<String, KeyError> {
        let claims = Claims {
            iss: ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.to_owned(),
            uid: uid.to_owned(),
            sub: UserInfo::service_account(namespace, account, "").username,
        };
        self.sign(&claims)
    }

    pub(super) fn authenticate_secret_token(
        &self,
        token: &str,
        wanted: &[String],
    ) -> Result<(UserInfo, Vec<String>), ServiceAccountError> {
        let claims = jwt::verify(token, &self.keys().verifying)?;
        let claims: Claims = serde_json::from_value(claims).map_err(|_| ServiceAccountError::Claims)?;
        let user = UserInfo::service_account(&claims.namespace, &claims.account, &claims.uid);
        if claims.iss != ISSUER || claims.sub != user.username || claims.uid.is_empty() {
            return Err(ServiceAccountError::Claims);
        }
        // They name no audience, and are for the API server alone.
        let wanted = if wanted.is_empty() { &self.audiences } else { wanted };
        let audiences: Vec<String> = wanted.iter().filter(|one| self.audiences.contains(one)).cloned().collect();
        if audiences.is_empty() {
            return Err(ServiceAccountError::Audience(self.audiences.clone(), wanted.to_vec()));
        }
        self.is_kept(token, &claims)?;
        Ok((user, audiences))
    }

    /// Whether Secret and ServiceAccount still vouch for the token. Unlike a pod, they need it for nothing once they are deleted.
    fn is_kept(&self, token: &str, claims: &Claims) -> Result<(), ServiceAccountError> {
        let get = |kind, name: &str| {
            let fact = self.facts.get(kind, &claims.namespace, name);
            fact.filter(|fact| fact.deleted_at.is_none()).ok_or(ServiceAccountError::Invalidated)
        };
        let secret = get(Kind::Secret, &claims.secret)?;
        let kept = secret.token.filter(|kept| kept.is(token)).ok_or(ServiceAccountError::NotInSecret)?;
        if get(Kind::ServiceAccount, &claims.account)?.uid.as_ref() != claims.uid {
            return Err(ServiceAccountError::Invalidated);
        }
        if kept.is_marked_invalid { Err(ServiceAccountError::MarkedInvalid) } else { Ok(()) }
    }
}
