//! Who a request comes from and what it may do: x509, bootstrap and ServiceAccount tokens; RBAC and the Node authorizer.
//! Pure but for keys read at start; what it needs of the cluster reaches it through [`Observer`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

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

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    /// Nobody allowed it; the texts go into the 403's message as upstream composes it.
    NoOpinion(String),
}

/// Something that follows objects as they are committed: called under the cache's write order, for the initial load too,
/// with `None` when the object is gone. Must be quick and must not call back into the API server.
pub trait Observer: Send + Sync {
    /// Resources this observer wants, e.g. `("rbac.authorization.k8s.io", "clusterroles")`.
    fn interests(&self) -> &[(&'static str, &'static str)];
    fn observe(&self, group: &str, resource: &str, namespace: &str, name: &str, object: Option<&Value>);
}
