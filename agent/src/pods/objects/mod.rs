//! ConfigMaps, Secrets and tokens of the API server, for the pods of this node.

mod held;
mod tokens;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use volumes::{BoundToken, ObjectError, Objects, TokenAsk};

use crate::client::watch::describe;
pub use held::Hold;
use held::Kept;
use tokens::Tokens;

/// The objects of all pods. What a pod [holds](Hold) is followed; anything else is asked for when it is read.
pub struct ApiObjects {
    config_maps: Kept<ConfigMap>,
    secrets: Kept<Secret>,
    tokens: Tokens,
}

impl ApiObjects {
    /// Nothing is held at first.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self { config_maps: Kept::new(client.clone()), secrets: Kept::new(client.clone()), tokens: Tokens::new(client) }
    }

    /// The tokens of a pod are of no more use.
    pub fn forget(&self, pod_uid: &str) {
        self.tokens.forget(pod_uid);
    }
}

impl Objects for ApiObjects {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<ConfigMap, ObjectError> {
        self.config_maps.read(namespace, name).await
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Secret, ObjectError> {
        self.secrets.read(namespace, name).await
    }

    async fn token(&self, ask: &TokenAsk) -> Result<BoundToken, ObjectError> {
        self.tokens.get(ask).await
    }
}

fn other(error: &kube::Error) -> ObjectError {
    ObjectError::Other(describe(error))
}
