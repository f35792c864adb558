//! ConfigMaps, Secrets and tokens from the API server.
//!
//! A pod that starts reads what is there now. A pod that runs is content with what any pod has read in the last while,
//! so that a hundred pods with the same root certificate ask for it once a minute and not a hundred times.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use volumes::{BoundToken, ObjectError, Objects, TokenAsk, renew_at};

use crate::client::is_not_found;
use crate::client::watch::describe;

/// How old an object may be for a pod that runs.
const FRESH: Duration = Duration::from_secs(45);
/// Objects that nobody read for this long are forgotten.
const FORGET: Duration = Duration::from_secs(300);

type Key = (String, String);

struct Cached<T> {
    object: T,
    read: Instant,
}

/// The API server, with a short memory.
pub struct ApiObjects {
    client: kube::Client,
    config_maps: Mutex<HashMap<Key, Cached<ConfigMap>>>,
    secrets: Mutex<HashMap<Key, Cached<Secret>>>,
    tokens: Mutex<HashMap<TokenAsk, BoundToken>>,
}

impl ApiObjects {
    /// Nothing is known at first.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self { client, config_maps: Mutex::default(), secrets: Mutex::default(), tokens: Mutex::default() }
    }

    /// For a pod that starts.
    #[must_use]
    pub fn now(&self) -> Reader<'_> {
        Reader { from: self, oldest: Duration::ZERO }
    }

    /// For a pod that runs.
    #[must_use]
    pub fn lately(&self) -> Reader<'_> {
        Reader { from: self, oldest: FRESH }
    }

    async fn get<K>(
        &self,
        cache: &Mutex<HashMap<Key, Cached<K>>>,
        what: (&'static str, &str, &str),
        oldest: Duration,
    ) -> Result<K, ObjectError>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let (kind, namespace, name) = what;
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(cached) = lock(cache).get(&key)
            && cached.read.elapsed() < oldest
        {
            return Ok(cached.object.clone());
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let object = api.get(name).await.map_err(|error| {
            if is_not_found(&error) { ObjectError::NotFound { kind, name: name.to_owned() } } else { other(&error) }
        })?;
        let mut known = lock(cache);
        known.retain(|_, cached| cached.read.elapsed() < FORGET);
        known.insert(key, Cached { object: object.clone(), read: Instant::now() });
        Ok(object)
    }

    async fn fresh_token(&self, ask: &TokenAsk) -> Result<BoundToken, ObjectError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &ask.namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(ask.audience.clone()).filter(|a| !a.is_empty()).map(|audience| vec![audience]),
                expiration_seconds: Some(ask.expiration_seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(ask.pod_name.clone()),
                    uid: Some(ask.pod_uid.clone()),
                }),
            }),
            ..TokenRequest::default()
        };
        let created = api.create_token_request(&ask.service_account, &PostParams::default(), &request).await;
        let status = created.map_err(|error| other(&error))?.status.unwrap_or_default();
        let (Some(token), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err(ObjectError::Other("the API server answered a TokenRequest without a token".to_owned()));
        };
        Ok(BoundToken { token, renew_at: renew_at(jiff::Timestamp::now(), expires.0) })
    }
}

fn other(error: &kube::Error) -> ObjectError {
    ObjectError::Other(describe(error))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// [`ApiObjects`] with a word on how old an answer may be.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    from: &'a ApiObjects,
    oldest: Duration,
}

impl Objects for Reader<'_> {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<ConfigMap, ObjectError> {
        self.from.get(&self.from.config_maps, ("configmap", namespace, name), self.oldest).await
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Secret, ObjectError> {
        self.from.get(&self.from.secrets, ("secret", namespace, name), self.oldest).await
    }

    async fn token(&self, ask: &TokenAsk) -> Result<BoundToken, ObjectError> {
        let now = jiff::Timestamp::now();
        if let Some(known) = lock(&self.from.tokens).get(ask)
            && known.renew_at > now
        {
            return Ok(known.clone());
        }
        let token = self.from.fresh_token(ask).await?;
        let mut known = lock(&self.from.tokens);
        known.retain(|_, token| token.renew_at > now);
        known.insert(ask.clone(), token.clone());
        Ok(token)
    }
}
