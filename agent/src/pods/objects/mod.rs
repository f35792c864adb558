//! ConfigMaps, Secrets and tokens of the API server, for the pods of this node.

mod held;
pub mod named;
mod tokens;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret};
use kube::Api;
use volumes::{BoundToken, ObjectError, Objects, TokenAsk};

use crate::client::is_not_found;
use crate::client::watch::describe;
pub use held::Hold;
use held::Kept;
use tokens::Tokens;

/// The objects of all pods. What a pod [holds](Hold) is followed; anything else is asked for when it is read.
pub struct ApiObjects {
    config_maps: Kept<ConfigMap>,
    secrets: Kept<Secret>,
    tokens: Tokens,
    client: kube::Client,
}

impl ApiObjects {
    /// Nothing is held at first.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self {
            config_maps: Kept::new(client.clone()),
            secrets: Kept::new(client.clone()),
            tokens: Tokens::new(client.clone()),
            client,
        }
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

    async fn claim(&self, namespace: &str, name: &str) -> Result<PersistentVolumeClaim, ObjectError> {
        let api = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), namespace);
        api.get(name).await.map_err(|error| asked("persistentvolumeclaim", name, &error))
    }

    async fn volume(&self, name: &str) -> Result<PersistentVolume, ObjectError> {
        let api = Api::<PersistentVolume>::all(self.client.clone());
        api.get(name).await.map_err(|error| asked("persistentvolume", name, &error))
    }

    async fn token(&self, ask: &TokenAsk) -> Result<BoundToken, ObjectError> {
        self.tokens.get(ask).await
    }
}

fn asked(kind: &'static str, name: &str, error: &kube::Error) -> ObjectError {
    if is_not_found(error) { ObjectError::NotFound { kind, name: name.to_owned() } } else { other(error) }
}

fn other(error: &kube::Error) -> ObjectError {
    match error {
        kube::Error::Api(status) if status.code < 500 => ObjectError::Other(describe(error)),
        _ => ObjectError::Unavailable(describe(error)),
    }
}
