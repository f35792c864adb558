//! Who a request comes from and what it may do: x509, bootstrap and ServiceAccount tokens; RBAC and the Node authorizer.
//! Pure but for keys read at start; what it needs of the cluster reaches it through [`Observer`].
//!
//! The API server composes it so: every [`Observer`] ([`Facts`], [`Rbac`], [`NodeGraph`]) is fed from the cache; a request
//! is identified by [`Authenticator`], judged by an [`Authorizer`] ([`Authorizers`] is the usual union), and refused with
//! [`Refusal`]s whose texts are upstream's. The review APIs, which store nothing, are [`Reviews`].

// `serde_json::Value` answers Null for a key that is missing; clippy cannot tell it from a slice.
#![allow(clippy::indexing_slicing)]

pub mod front_proxy;
pub mod pki;

mod authenticator;
mod bootstrap;
mod decision;
mod facts;
mod impersonation;
mod jwt;
mod node;
mod rbac;
mod refusal;
mod reviews;
mod secret;
mod service_account;
mod x509;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use authenticator::{Authentication, AuthenticationError, Authenticator, Credentials};
pub use bootstrap::{BootstrapToken, BootstrapTokenError, SECRET_PREFIX as BOOTSTRAP_SECRET_PREFIX, TokenPurpose};
pub use decision::Authorizers;
pub use facts::Facts;
pub use impersonation::impersonate;
pub use jwt::{KeyError, SigningKey, VerifyingKey};
pub use node::{NodeAuthorizer, NodeGraph, node_identity};
pub use rbac::{DefaultObject, PolicyError, PolicyRule, Rbac, aggregate, default_objects, escalation, reconcile};
pub use refusal::{FieldCause, Refusal};
pub use reviews::Reviews;
pub use secret::SecretText;
pub use service_account::{ServiceAccountTokens, TokenIssuerConfig, random_uuid};

/// Upstream's well-known groups and users (`k8s.io/apiserver/pkg/authentication/user`).
pub mod names {
    pub const ALL_AUTHENTICATED: &str = "system:authenticated";
    pub const ALL_UNAUTHENTICATED: &str = "system:unauthenticated";
    pub const ANONYMOUS: &str = "system:anonymous";
    pub const PRIVILEGED_GROUP: &str = "system:masters";
    pub const NODES_GROUP: &str = "system:nodes";
    pub const NODE_USER_PREFIX: &str = "system:node:";
    pub const BOOTSTRAPPERS_GROUP: &str = "system:bootstrappers";
    pub const BOOTSTRAP_USER_PREFIX: &str = "system:bootstrap:";
    pub const SERVICE_ACCOUNTS_GROUP: &str = "system:serviceaccounts";
    pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
}

/// `authentication.k8s.io/v1` UserInfo.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    pub username: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user with groups and nothing else; in-process clients are made so.
    pub fn new(username: impl Into<String>, groups: &[&str]) -> Self {
        UserInfo {
            username: username.into(),
            groups: groups.iter().map(ToString::to_string).collect(),
            ..Self::default()
        }
    }

    /// Who an unauthenticated request is taken for.
    pub fn anonymous() -> Self {
        Self::new(names::ANONYMOUS, &[names::ALL_UNAUTHENTICATED])
    }

    /// The identity that a ServiceAccount's token gives (`serviceaccount.UserInfo`).
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        UserInfo {
            username: format!("{}{namespace}:{name}", names::SERVICE_ACCOUNT_PREFIX),
            uid: uid.to_owned(),
            groups: vec![
                names::SERVICE_ACCOUNTS_GROUP.to_owned(),
                format!("{}:{namespace}", names::SERVICE_ACCOUNTS_GROUP),
                names::ALL_AUTHENTICATED.to_owned(),
            ],
            extra: BTreeMap::new(),
        }
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// What an authorizer decides about.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    pub user: &'a UserInfo,
    /// get, list, watch, create, update, patch, delete, deletecollection, or the HTTP method in lower case
    pub verb: &'a str,
    /// Empty group for core; all empty for a non-resource request.
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Set for non-resource requests only.
    pub path: Option<&'a str>,
    /// The raw `fieldSelector` and `labelSelector` (the Node authorizer reads the first: `spec.nodeName=NAME`).
    pub field_selector: &'a str,
    pub label_selector: &'a str,
}

impl<'a> Attributes<'a> {
    /// A user and a verb; what it is about is still to be said.
    pub fn of(user: &'a UserInfo, verb: &'a str) -> Self {
        Attributes {
            user,
            verb,
            group: "",
            version: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            path: None,
            field_selector: "",
            label_selector: "",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    /// Nobody allowed it; the texts go into the 403's message as upstream composes it.
    NoOpinion(String),
}

impl Decision {
    pub fn allowed(&self) -> bool {
        matches!(self, Decision::Allow(_))
    }

    pub fn reason(&self) -> &str {
        match self {
            Decision::Allow(reason) | Decision::NoOpinion(reason) => reason,
        }
    }
}

/// Decides whether a request may go on.
pub trait Authorizer: Send + Sync {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;
}

/// Something that follows objects as they are committed: called under the cache's write order, for the initial load too,
/// with `None` when the object is gone. Must be quick and must not call back into the API server.
pub trait Observer: Send + Sync {
    /// Resources this observer wants, e.g. `("rbac.authorization.k8s.io", "clusterroles")`.
    fn interests(&self) -> &[(&'static str, &'static str)];
    fn observe(&self, group: &str, resource: &str, namespace: &str, name: &str, object: Option<&Value>);
}
