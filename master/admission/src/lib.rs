//! Admission as Kubernetes has it on by default, as functions over one object: NamespaceLifecycle, NodeRestriction,
//! ServiceAccount, DefaultTolerationSeconds, TaintNodesByCondition, Priority. Runs after decoding and defaulting, before
//! validation; mutating ones first.

use auth::UserInfo;
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// One write on its way in.
pub struct Request<'a> {
    pub user: &'a UserInfo,
    pub operation: Operation,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub old: Option<&'a Value>,
}

/// Read access to what is committed; implemented by the API server over its cache.
pub trait Lookup: Send + Sync {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Value>;
}

/// A refusal: HTTP code, Status reason and message as upstream words them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
}
