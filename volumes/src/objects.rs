//! What volumes ask of the rest of the agent.

use std::future::Future;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, ObjectFieldSelector, PersistentVolume, PersistentVolumeClaim, ResourceFieldSelector, Secret,
};

/// Why an object is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The server says that it does not exist. `kind` is the resource's singular: `configmap`, `secret`.
    #[error("{kind} \"{name}\" not found")]
    NotFound { kind: &'static str, name: String },
    /// The server cannot be asked at the moment.
    #[error("{0}")]
    Unavailable(String),
    /// Anything else: refused, a field that does not exist.
    #[error("{0}")]
    Other(String),
}

/// A `TokenRequest` for a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenAsk {
    pub namespace: String,
    pub service_account: String,
    pub pod_name: String,
    pub pod_uid: String,
    /// Empty for the API server's own audience.
    pub audience: String,
    pub expiration_seconds: i64,
}

/// A token and when it should be replaced.
#[derive(Clone, PartialEq, Eq)]
pub struct BoundToken {
    pub token: String,
    pub renew_at: Timestamp,
}

impl std::fmt::Debug for BoundToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundToken").field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

/// The longest a token is used, whatever its life.
const DAY_SECONDS: i64 = 24 * 3600;

/// When a token is replaced: at 80 % of its life, and after a day at the latest (pkg/kubelet/token).
#[must_use]
pub fn renew_at(issued: Timestamp, expires: Timestamp) -> Timestamp {
    let life = expires.as_second().saturating_sub(issued.as_second()).max(0);
    let wait = (life.saturating_mul(4) / 5).min(DAY_SECONDS);
    Timestamp::from_second(issued.as_second().saturating_add(wait)).unwrap_or(expires)
}

/// Objects of the cluster. Implementations cache: a refresh asks again for everything.
pub trait Objects: Send + Sync {
    /// A `ConfigMap`.
    fn config_map(&self, namespace: &str, name: &str) -> impl Future<Output = Result<ConfigMap, ObjectError>> + Send;

    /// A `Secret`.
    fn secret(&self, namespace: &str, name: &str) -> impl Future<Output = Result<Secret, ObjectError>> + Send;

    /// A `PersistentVolumeClaim`.
    fn claim(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<PersistentVolumeClaim, ObjectError>> + Send;

    /// A `PersistentVolume`.
    fn volume(&self, name: &str) -> impl Future<Output = Result<PersistentVolume, ObjectError>> + Send;

    /// A service account token bound to a pod.
    fn token(&self, ask: &TokenAsk) -> impl Future<Output = Result<BoundToken, ObjectError>> + Send;
}

/// Fields of the pod itself. The same rules serve environment variables, so that the caller has them.
pub trait Downward: Send + Sync {
    /// `fieldRef`.
    ///
    /// # Errors
    /// When there is no such field.
    fn field(&self, selector: &ObjectFieldSelector) -> Result<String, String>;

    /// `resourceFieldRef`, of the container that it names.
    ///
    /// # Errors
    /// When there is no such container or resource.
    fn resource(&self, selector: &ResourceFieldSelector) -> Result<String, String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_at_four_fifths_or_after_a_day() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(renew_at(at(1000), at(1000 + 3607)), at(1000 + 2885));
        assert_eq!(renew_at(at(0), at(365 * 24 * 3600)), at(24 * 3600));
        assert_eq!(renew_at(at(10), at(5)), at(10));
    }
}
