//! What token authentication must know of the cluster, kept as small as it can be.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::Observer;
use crate::bootstrap::{self, BootstrapToken};

/// How long an object that is being deleted still vouches for its tokens (`jwt.DefaultLeeway`).
const DELETION_LEEWAY_SECONDS: i64 = 60;

/// The type of Secrets that hold tokens of ServiceAccounts.
const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";
const INVALID_SINCE: &str = "/metadata/labels/kubernetes.io~1legacy-token-invalid-since";

const INTERESTS: [(&str, &str); 4] = [("", "serviceaccounts"), ("", "pods"), ("", "nodes"), ("", "secrets")];

/// Which ServiceAccounts, pods, nodes and secrets exist, with their uids, and the bootstrap tokens.
#[derive(Debug, Default)]
pub struct Facts {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    objects: HashMap<Kind, HashMap<Box<str>, Fact>>,
    bootstrap: HashMap<Box<str>, BootstrapToken>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    ServiceAccount,
    Pod,
    Node,
    Secret,
}

/// One object as far as tokens are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fact {
    pub uid: Box<str>,
    pub deleted_at: Option<Timestamp>,
    /// Pods only: the ServiceAccount it runs as and the node it runs on.
    pub service_account: Box<str>,
    pub node: Box<str>,
    /// Secrets of ServiceAccount tokens only.
    pub token: Option<Box<KeptToken>>,
}

/// What a Secret tells of the token that it holds, which is not itself kept in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptToken {
    digest: [u8; 32],
    /// Labelled as of no use any more (`LegacyServiceAccountTokenCleanUp`).
    pub is_marked_invalid: bool,
}

impl KeptToken {
    /// Whether it is this token, whose signature was checked before: nobody can guess at it.
    pub(crate) fn is(&self, token: &str) -> bool {
        self.digest == <[u8; 32]>::from(Sha256::digest(token))
    }

    fn of(secret: &Value) -> Option<Box<Self>> {
        let text = |pointer: &str| secret.pointer(pointer).and_then(Value::as_str);
        text("/type").filter(|kind| *kind == TOKEN_TYPE)?;
        let token = STANDARD.decode(text("/data/token")?).ok()?;
        let is_marked_invalid = text(INVALID_SINCE).is_some_and(|since| !since.is_empty());
        Some(Box::new(KeptToken { digest: Sha256::digest(token).into(), is_marked_invalid }))
    }
}

impl Fact {
    /// Whether a token bound to this object is no longer good because the object is on its way out.
    pub(crate) fn is_gone(&self, now: Timestamp) -> bool {
        self.deleted_at.is_some_and(|at| at.as_second() < now.as_second() - DELETION_LEEWAY_SECONDS)
    }

    fn of(object: &Value) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        Fact {
            uid: text("/metadata/uid").into(),
            deleted_at: text("/metadata/deletionTimestamp").parse().ok(),
            service_account: text("/spec/serviceAccountName").into(),
            node: text("/spec/nodeName").into(),
            token: KeptToken::of(object),
        }
    }
}

impl Facts {
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Fact> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.objects.get(&kind)?.get(key(namespace, name).as_str()).cloned()
    }

    pub(crate) fn bootstrap_token(&self, id: &str) -> Option<BootstrapToken> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).bootstrap.get(id).cloned()
    }

    fn set_bootstrap(known: &mut Known, name: &str, secret: Option<&Value>) {
        let Some(id) = name.strip_prefix(bootstrap::SECRET_PREFIX) else { return };
        match secret.and_then(BootstrapToken::from_secret) {
            Some(token) => known.bootstrap.insert(id.into(), token),
            None => known.bootstrap.remove(id),
        };
    }
}

impl Observer for Facts {
    fn interests(&self) -> &[(&'static str, &'static str)] {
        &INTERESTS
    }

    fn observe(&self, group: &str, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        let kind = match (group, resource) {
            ("", "serviceaccounts") => Kind::ServiceAccount,
            ("", "pods") => Kind::Pod,
            ("", "nodes") => Kind::Node,
            ("", "secrets") => Kind::Secret,
            _ => return,
        };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if kind == Kind::Secret && namespace == bootstrap::NAMESPACE {
            Self::set_bootstrap(&mut known, name, object);
        }
        let objects = known.objects.entry(kind).or_default();
        let key = key(namespace, name);
        match object {
            Some(object) => objects.insert(key.into(), Fact::of(object)),
            None => objects.remove(key.as_str()),
        };
    }
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}
