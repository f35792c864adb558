//! Service account tokens: asked for once, kept until they are due to be replaced (pkg/kubelet/token).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use volumes::{BoundToken, ObjectError, TokenAsk, renew_at};

use super::other;

/// When a token could not be replaced, but is good for a while yet, it is tried again after this.
const AGAIN: SignedDuration = SignedDuration::from_secs(15);

pub(super) struct Tokens {
    client: kube::Client,
    known: Mutex<HashMap<TokenAsk, Known>>,
}

#[derive(Clone)]
struct Known {
    token: BoundToken,
    expires: Timestamp,
}

impl Tokens {
    pub fn new(client: kube::Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// A token that is good for a while. One that cannot be replaced in time serves until it ends.
    pub async fn get(&self, ask: &TokenAsk) -> Result<BoundToken, ObjectError> {
        let now = Timestamp::now();
        let known = self.lock().get(ask).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.token.renew_at > now) {
            return Ok(known.token.clone());
        }
        match (self.fresh(ask).await, known) {
            (Ok(fresh), _) => {
                let token = fresh.token.clone();
                let mut all = self.lock();
                all.retain(|_, known| known.expires > now);
                all.insert(ask.clone(), fresh);
                Ok(token)
            }
            (Err(error), Some(known)) if known.expires > now => {
                tracing::warn!(namespace = %ask.namespace, service_account = %ask.service_account, pod = %ask.pod_name, %error,
                    "token not renewed, will retry");
                Ok(BoundToken { renew_at: now.checked_add(AGAIN).unwrap_or(now), ..known.token })
            }
            (Err(error), _) => Err(error),
        }
    }

    pub fn forget(&self, pod_uid: &str) {
        self.lock().retain(|ask, _| ask.pod_uid != pod_uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenAsk, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fresh(&self, ask: &TokenAsk) -> Result<Known, ObjectError> {
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
        let token = BoundToken { token, renew_at: renew_at(Timestamp::now(), expires.0) };
        Ok(Known { token, expires: expires.0 })
    }
}
