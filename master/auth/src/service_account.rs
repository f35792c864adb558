//! ServiceAccount tokens: issuing what a TokenRequest asks for, and checking what a client presents.
//! Rules: KEP-1205 (bound tokens), KEP-4193 (node and JTI claims), `pkg/serviceaccount/claims.go`.

mod secret_token;

use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::facts::{Fact, Facts, Kind};
use crate::refusal::FieldCause;
use crate::x509::CREDENTIAL_ID;
use crate::{KeyError, Refusal, SigningKey, UserInfo, VerifyingKey, jwt};

/// What the ServiceAccount admission asks for in the volume it injects; only this lifetime is ever extended.
const INJECTED_LIFETIME_SECONDS: i64 = 3607;
/// What such a token really lives, so that a client that never reloads it goes on working.
const EXTENDED_LIFETIME_SECONDS: i64 = 365 * 24 * 3600;
const SHORTEST_LIFETIME_SECONDS: i64 = 600;
const LONGEST_LIFETIME_SECONDS: i64 = 1 << 32;
const DEFAULT_LIFETIME_SECONDS: i64 = 3600;
/// How far clocks may differ (`jwt.DefaultLeeway`).
const LEEWAY_SECONDS: i64 = 60;

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
pub(crate) const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_UID: &str = "authentication.kubernetes.io/node-uid";

/// How tokens are made.
pub struct TokenIssuerConfig {
    /// `--service-account-issuer`
    pub issuer: String,
    /// `--api-audiences`; the issuer when empty.
    pub audiences: Vec<String>,
    pub signing_key: SigningKey,
    /// Further keys whose tokens are still good, e.g. the last one's.
    pub verifying_keys: Vec<VerifyingKey>,
}

/// Issues and checks ServiceAccount tokens.
pub struct ServiceAccountTokens {
    issuer: String,
    audiences: Vec<String>,
    keys: RwLock<Arc<Keys>>,
    facts: Arc<Facts>,
}

struct Keys {
    signing: SigningKey,
    /// The public half of the signing key, and others whose tokens are good, too.
    verifying: Vec<VerifyingKey>,
}

impl Keys {
    fn new(signing: SigningKey, mut further: Vec<VerifyingKey>) -> Arc<Self> {
        further.retain(|key| key != signing.verifying_key());
        further.insert(0, signing.verifying_key().clone());
        Arc::new(Keys { signing, verifying: further })
    }
}

/// Why a ServiceAccount token was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceAccountError {
    #[error(transparent)]
    Token(#[from] jwt::TokenError),
    #[error("service account token claims are incomplete")]
    Claims,
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYet,
    #[error("token audiences {0:?} is invalid for the target audiences {1:?}")]
    Audience(Vec<String>, Vec<String>),
    #[error("service account token has been invalidated")]
    Invalidated,
    #[error("service account token is not the one that its secret holds")]
    NotInSecret,
    #[error("service account token's secret is labelled kubernetes.io/legacy-token-invalid-since")]
    MarkedInvalid,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    #[serde(default)]
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: KubernetesClaims,
    nbf: i64,
    sub: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct KubernetesClaims {
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Ref>,
    serviceaccount: Ref,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warnafter: Option<i64>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ref {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ObjectRef {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
}

impl ServiceAccountTokens {
    pub fn new(config: TokenIssuerConfig, facts: Arc<Facts>) -> Self {
        let TokenIssuerConfig { issuer, mut audiences, signing_key, verifying_keys } = config;
        if audiences.is_empty() {
            audiences.push(issuer.clone());
        }
        let keys = RwLock::new(Keys::new(signing_key, verifying_keys));
        ServiceAccountTokens { issuer, audiences, keys, facts }
    }

    /// Signs with another key from now on; tokens of `verifying_keys` are good beside its own.
    pub fn set_keys(&self, signing_key: SigningKey, verifying_keys: Vec<VerifyingKey>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Keys::new(signing_key, verifying_keys);
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// `/openid/v1/jwks`
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.keys().verifying.iter().map(VerifyingKey::jwk).collect::<Vec<_>>() })
    }

    /// `/.well-known/openid-configuration`
    pub fn openid_configuration(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/openid/v1/jwks", self.issuer),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// What the API server takes a token for when nothing else is asked (`--api-audiences`).
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Answers `POST …/serviceaccounts/NAME/token`: `request` with its defaults, metadata and status filled.
    /// Admission (NodeRestriction) has run before.
    pub fn token_request(
        &self,
        namespace: &str,
        name: &str,
        mut request: Value,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        if !request.is_object() {
            return Err(Refusal::bad_request("a TokenRequest must be an object"));
        }
        must_match_url(&request, "name", name)?;
        must_match_url(&request, "namespace", namespace)?;
        let account = self
            .facts
            .get(Kind::ServiceAccount, namespace, name)
            .ok_or_else(|| Refusal::not_found("", "serviceaccounts", name))?;
        self.default(&mut request, namespace, name, &account, now)?;

        let lifetime = lifetime(&request)?;
        let audiences = audiences(&request);
        let bound = self.bind(namespace, name, &request)?;
        let extended = lifetime == INJECTED_LIFETIME_SECONDS
            && bound.pod.is_some()
            && audiences.iter().all(|audience| self.audiences.contains(audience));
        let issued = now.as_second();
        let claims = Claims {
            aud: audiences,
            exp: issued + if extended { EXTENDED_LIFETIME_SECONDS } else { lifetime },
            iat: issued,
            iss: self.issuer.clone(),
            jti: random_uuid(),
            kubernetes: KubernetesClaims {
                namespace: namespace.to_owned(),
                serviceaccount: Ref { name: name.to_owned(), uid: account.uid.into() },
                warnafter: extended.then_some(issued + lifetime),
                ..bound
            },
            nbf: issued,
            sub: UserInfo::service_account(namespace, name, "").username,
        };
        let token =
            self.sign(&claims).map_err(|error| Refusal::internal(&format!("failed to generate token: {error}")))?;
        request["status"] = json!({ "token": token, "expirationTimestamp": rfc3339(issued + lifetime) });
        Ok(request)
    }

    fn sign(&self, claims: &impl Serialize) -> Result<String, KeyError> {
        let claims = serde_json::to_value(claims).map_err(|_| KeyError::Signing)?;
        self.keys().signing.sign(&claims)
    }

    fn default(
        &self,
        request: &mut Value,
        namespace: &str,
        name: &str,
        account: &Fact,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let asked_uid = request.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        if !asked_uid.is_empty() && asked_uid != account.uid.as_ref() {
            let why = format!(
                "the UID in the token request ({asked_uid}) does not match the UID of the service account ({})",
                account.uid
            );
            return Err(Refusal::conflict(GROUP, KIND, name, &why));
        }
        for part in ["metadata", "spec"] {
            if !request[part].is_object() {
                request[part] = json!({});
            }
        }
        request["metadata"]["name"] = json!(name);
        request["metadata"]["namespace"] = json!(namespace);
        request["metadata"]["uid"] = json!(account.uid);
        request["metadata"]["creationTimestamp"] = json!(rfc3339(now.as_second()));
        if request["spec"]["audiences"].as_array().is_none_or(Vec::is_empty) {
            request["spec"]["audiences"] = json!(self.audiences);
        }
        if request["spec"]["expirationSeconds"].is_null() {
            request["spec"]["expirationSeconds"] = json!(DEFAULT_LIFETIME_SECONDS);
        }
        Ok(())
    }

    /// The claims that tie the token to another object's life.
    fn bind(&self, namespace: &str, account: &str, request: &Value) -> Result<KubernetesClaims, Refusal> {
        let mut claims = KubernetesClaims::default();
        let reference = &request["spec"]["boundObjectRef"];
        if reference.is_null() {
            return Ok(claims);
        }
        let reference = ObjectRef::deserialize(reference).map_err(|error| Refusal::bad_request(error.to_string()))?;
        let (kind, resource, scope) = match (reference.api_version.as_str(), reference.kind.as_str()) {
            ("v1", "Pod") => (Kind::Pod, "pods", namespace),
            ("v1", "Secret") => (Kind::Secret, "secrets", namespace),
            ("v1", "Node") => (Kind::Node, "nodes", ""),
            _ => return Err(Refusal::bad_request(format!("cannot bind token to object of type {}", reference.gvk()))),
        };
        let fact = self
            .facts
            .get(kind, scope, &reference.name)
            .ok_or_else(|| Refusal::not_found("", resource, &reference.name))?;
        if kind == Kind::Pod && fact.service_account.as_ref() != account {
            return Err(Refusal::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
            )));
        }
        if !reference.uid.is_empty() && reference.uid != fact.uid.as_ref() {
            let why = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                reference.uid
            );
            return Err(Refusal::conflict("", &reference.kind, &reference.name, &why));
        }
        let bound = Some(Ref { name: reference.name, uid: fact.uid.into() });
        match kind {
            Kind::Pod => {
                claims.pod = bound;
                claims.node = self.node_of_pod(&fact.node);
            }
            Kind::Secret => claims.secret = bound,
            Kind::Node | Kind::ServiceAccount => claims.node = bound,
        }
        Ok(claims)
    }

    /// The node a pod runs on; its name stands in the token even when the Node is gone.
    fn node_of_pod(&self, node: &str) -> Option<Ref> {
        if node.is_empty() {
            return None;
        }
        let uid = self.facts.get(Kind::Node, "", node).map(|fact| fact.uid.into()).unwrap_or_default();
        Some(Ref { name: node.to_owned(), uid })
    }

    /// Whether the token claims to come from one of our issuers; only then is it for [`Self::authenticate`].
    pub(crate) fn claims_to_be_ours(&self, token: &str) -> bool {
        jwt::peek(token).is_some_and(|claims| claims["iss"] == json!(self.issuer)) || is_secret_token(token)
    }

    /// The user of a token and which of the wanted audiences it is good for; all of the API server's when none is wanted.
    pub(crate) fn authenticate(
        &self,
        token: &str,
        wanted: &[String],
        now: Timestamp,
    ) -> Result<(UserInfo, Vec<String>), ServiceAccountError> {
        if is_secret_token(token) {
            return self.authenticate_secret_token(token, wanted);
        }
        let claims = jwt::verify(token, &self.keys().verifying)?;
        let claims: Claims = serde_json::from_value(claims).map_err(|_| ServiceAccountError::Claims)?;
        let now_seconds = now.as_second();
        if claims.exp < now_seconds - LEEWAY_SECONDS {
            return Err(ServiceAccountError::Expired);
        }
        if claims.nbf > now_seconds + LEEWAY_SECONDS || claims.iat > now_seconds + LEEWAY_SECONDS {
            return Err(ServiceAccountError::NotYet);
        }
        let wanted = if wanted.is_empty() { &self.audiences } else { wanted };
        let audiences: Vec<String> = wanted.iter().filter(|audience| claims.aud.contains(audience)).cloned().collect();
        if audiences.is_empty() {
            return Err(ServiceAccountError::Audience(claims.aud, wanted.to_vec()));
        }
        self.still_exists(&claims.kubernetes, now)?;
        Ok((user(&claims), audiences))
    }

    fn still_exists(&self, claims: &KubernetesClaims, now: Timestamp) -> Result<(), ServiceAccountError> {
        let namespace = claims.namespace.as_str();
        let mut needed = vec![(Kind::ServiceAccount, namespace, &claims.serviceaccount)];
        needed.extend(claims.secret.as_ref().map(|secret| (Kind::Secret, namespace, secret)));
        needed.extend(claims.pod.as_ref().map(|pod| (Kind::Pod, namespace, pod)));
        // Of a token bound to a pod, the node is information only.
        if claims.pod.is_none() {
            needed.extend(claims.node.as_ref().map(|node| (Kind::Node, "", node)));
        }
        for (kind, namespace, reference) in needed {
            let fact = self.facts.get(kind, namespace, &reference.name).ok_or(ServiceAccountError::Invalidated)?;
            if fact.uid.as_ref() != reference.uid || fact.is_gone(now) {
                return Err(ServiceAccountError::Invalidated);
            }
        }
        Ok(())
    }
}

impl ObjectRef {
    /// As Go prints a GroupVersionKind.
    fn gvk(&self) -> String {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
        format!("{group}/{version}, Kind={}", self.kind)
    }
}

/// Whether the token claims to be one that a Secret holds.
fn is_secret_token(token: &str) -> bool {
    jwt::peek(token).is_some_and(|claims| claims["iss"] == secret_token::ISSUER)
}

fn user(claims: &Claims) -> UserInfo {
    let private = &claims.kubernetes;
    let account = &private.serviceaccount;
    let mut user = UserInfo::service_account(&private.namespace, &account.name, &account.uid);
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(key.to_owned(), vec![value.to_owned()]);
        }
    };
    if !claims.jti.is_empty() {
        add(CREDENTIAL_ID, &format!("JTI={}", claims.jti));
    }
    for (reference, name, uid) in [(&private.pod, POD_NAME, POD_UID), (&private.node, NODE_NAME, NODE_UID)] {
        if let Some(reference) = reference {
            add(name, &reference.name);
            add(uid, &reference.uid);
        }
    }
    user
}

fn must_match_url(request: &Value, field: &str, wanted: &str) -> Result<(), Refusal> {
    let given = request["metadata"][field].as_str().unwrap_or_default();
    if given.is_empty() || given == wanted {
        return Ok(());
    }
    let what = if field == "name" { "name" } else { "namespace" };
    let cause = FieldCause {
        reason: "FieldValueInvalid",
        field: &format!("metadata.{field}"),
        message: &format!("Invalid value: {given:?}: must match the service account {what} if specified"),
    };
    Err(Refusal::invalid(GROUP, KIND, wanted, &[cause]))
}

/// `spec.expirationSeconds`, within upstream's bounds (`ValidateTokenRequest`).
fn lifetime(request: &Value) -> Result<i64, Refusal> {
    let given = &request["spec"]["expirationSeconds"];
    let seconds = given.as_i64().ok_or_else(|| Refusal::bad_request("spec.expirationSeconds must be an integer"))?;
    let why = match seconds {
        ..SHORTEST_LIFETIME_SECONDS => "may not specify a duration less than 10 minutes",
        SHORTEST_LIFETIME_SECONDS..=LONGEST_LIFETIME_SECONDS => return Ok(seconds),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let cause = FieldCause {
        reason: "FieldValueInvalid",
        field: "spec.expirationSeconds",
        message: &format!("Invalid value: {seconds}: {why}"),
    };
    Err(Refusal::invalid(GROUP, KIND, "", &[cause]))
}

fn audiences(request: &Value) -> Vec<String> {
    let audiences = request["spec"]["audiences"].as_array();
    audiences.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn rfc3339(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// A version 4 UUID: what tokens and objects are told apart by.
pub fn random_uuid() -> String {
    let mut bits: u128 = rand::rng().random();
    bits = (bits & !(0xf << 76)) | (0x4 << 76);
    bits = (bits & !(0x3 << 62)) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |range| hex.get(range).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0..8), part(8..12), part(12..16), part(16..20), part(20..32))
}

#[cfg(test)]
mod tests;
