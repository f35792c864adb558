//! Who asks, and may they (pkg/kubelet/server/auth.go): client certificates of the cluster's CA, bearer tokens through
//! TokenReview, and SubjectAccessReview for what they may do. Answers are cached as upstream does.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, Method, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::cache::Expiring;
use crate::client::watch::describe;
use crate::config::kubelet::{Authentication, Authorization};
use crate::identity::now;

/// Somebody who is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// User name.
    pub name: String,
    /// Unique id, if any.
    pub uid: Option<String>,
    /// Groups.
    pub groups: Vec<String>,
    /// Whatever the authenticator adds.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Why a request is not served.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody known (401).
    Unauthorized,
    /// Known, and may not (403).
    Forbidden(String),
    /// Cannot be decided now (500), as when the API server is away.
    Undecided(String),
}

/// Decides on requests.
pub struct Gate {
    client: kube::Client,
    node_name: String,
    authentication: Authentication,
    authorization: Authorization,
    tokens: Expiring<[u8; 32], Option<User>>,
    decisions: Expiring<(User, String, String), bool>,
}

impl Gate {
    /// A gate that asks `client`.
    #[must_use]
    pub fn new(
        client: kube::Client,
        node_name: &str,
        authentication: Authentication,
        authorization: Authorization,
    ) -> Self {
        Self {
            client,
            node_name: node_name.to_owned(),
            authentication,
            authorization,
            tokens: Expiring::default(),
            decisions: Expiring::default(),
        }
    }

    /// Lets a request through or not.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn pass(
        &self,
        peer: Option<&Peer>,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<User, Refusal> {
        let user = self.authenticate(peer, headers).await?;
        if self.authorization.mode == "AlwaysAllow" {
            return Ok(user);
        }
        let (verb, subresources) = (verb(method), subresources(path));
        for subresource in subresources {
            if self.is_allowed(&user, verb, subresource).await? {
                return Ok(user);
            }
        }
        let list = subresources.join(" ");
        Err(Refusal::Forbidden(format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{list}])\n",
            user.name
        )))
    }

    async fn authenticate(&self, peer: Option<&Peer>, headers: &HeaderMap) -> Result<User, Refusal> {
        // Checked with every request: a connection may outlive the certificate it was made with.
        if let Some(peer) = peer.filter(|peer| now() < peer.not_after) {
            return Ok(peer.user.clone());
        }
        if let Some(token) = bearer(headers)
            && self.authentication.webhook.enabled
        {
            return self.token(token).await?.ok_or(Refusal::Unauthorized);
        }
        if self.authentication.anonymous.enabled {
            let groups = vec!["system:unauthenticated".into()];
            return Ok(User { name: "system:anonymous".into(), groups, ..User::default() });
        }
        Err(Refusal::Unauthorized)
    }

    async fn token(&self, token: &str) -> Result<Option<User>, Refusal> {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.tokens.get(&key) {
            return Ok(known);
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.map_err(|error| undecided(&error))?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).map(|info| User {
            name: info.username.unwrap_or_default(),
            uid: info.uid,
            groups: info.groups.unwrap_or_default(),
            extra: info.extra.unwrap_or_default(),
        });
        self.tokens.put(key, user.clone(), self.authentication.webhook.cache_ttl.0);
        Ok(user)
    }

    async fn is_allowed(&self, user: &User, verb: &str, subresource: &str) -> Result<bool, Refusal> {
        let key = (user.clone(), verb.to_owned(), subresource.to_owned());
        if let Some(known) = self.decisions.get(&key) {
            return Ok(known);
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: user.uid.clone(),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(self.node_name.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.map_err(|error| undecided(&error))?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        let ttl = &self.authorization.webhook;
        let ttl = if allowed { ttl.cache_authorized_ttl } else { ttl.cache_unauthorized_ttl };
        self.decisions.put(key, allowed, ttl.0);
        Ok(allowed)
    }
}

fn undecided(error: &kube::Error) -> Refusal {
    tracing::warn!(error = %describe(error), "cannot ask whether a request is allowed");
    Refusal::Undecided("the API server cannot be asked about this request\n".to_owned())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The client certificate of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    user: User,
    not_after: i64,
}

impl Peer {
    /// Reads a certificate that TLS has verified: the last CN is the user, each O a group, as Go reads them. One with a name that is no
    /// text is nobody's.
    #[must_use]
    pub fn from_certificate(der: &CertificateDer<'_>) -> Option<Arc<Self>> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let text =
            |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
        let name = subject.iter_common_name().last().and_then(text)?;
        let mut groups: Vec<String> = subject.iter_organization().map(text).collect::<Option<_>>()?;
        groups.push("system:authenticated".into());
        let user = User { name, groups, ..User::default() };
        Some(Arc::new(Self { user, not_after: certificate.validity().not_after.timestamp() }))
    }
}

/// The verb of a method, as upstream maps it.
fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// What a path needs: any one of these subresources of the node. The fine-grained ones are KEP-2862's.
fn subresources(path: &str) -> &'static [&'static str] {
    let under = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if under("/stats") {
        &["stats"]
    } else if under("/metrics") {
        &["metrics"]
    } else if under("/logs") {
        &["log"]
    } else if under("/checkpoint") {
        &["checkpoint"]
    } else if under("/pods") || under("/runningpods") {
        &["pods", "proxy"]
    } else if under("/healthz") {
        &["healthz", "proxy"]
    } else if under("/configz") {
        &["configz", "proxy"]
    } else {
        &["proxy"]
    }
}

#[cfg(test)]
mod tests;
