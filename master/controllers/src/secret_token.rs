//! Tokens of ServiceAccounts that are kept in Secrets (`pkg/controller/serviceaccount/tokens_controller.go`): who makes a Secret of
//! type `kubernetes.io/service-account-token` finds a token in it, and the Secret goes with its ServiceAccount.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use machinery::{Change, Informer, Outcome, Retry, WorkQueue, key_of};
use tokio::sync::watch;

use crate::context::{Authorities, Caches, Context, SecretToken, SignSecretToken};

/// The Secrets that hold tokens, as a field selector.
pub(crate) const ONLY_TOKENS: &str = "type=kubernetes.io/service-account-token";
/// The key of the token.
pub(crate) const TOKEN: &str = "token";
const CA: &str = "ca.crt";
const NAMESPACE: &str = "namespace";
/// On a Secret: whose token it holds.
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const NAME: &str = "tokens-controller";
const WORKERS: usize = 2;

type Pass<T> = Result<T, Retry<kube::Error>>;

struct Controller {
    client: Client,
    caches: Caches,
    authorities: watch::Receiver<Authorities>,
    sign: SignSecretToken,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    observe(&caches, &queue);
    let authorities = context.config.authorities.clone();
    let (mut changed, secrets, to) = (authorities.clone(), caches.account_tokens.clone(), queue.clone());
    context.spawn_synced(async move {
        while changed.changed().await.is_ok() {
            secrets.all().iter().for_each(|secret| to.add(key_of(&secret.metadata)));
        }
    });
    let sign = context.config.sign_secret_token.clone();
    let controller = Controller { client: context.client(NAME), caches, authorities, sign };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

/// Keys are `namespace/secret`, and `namespace/secret/account` of a Secret that is gone.
fn observe(caches: &Caches, queue: &Arc<WorkQueue>) {
    let to = queue.clone();
    caches.account_tokens.on_change(move |change| {
        let key = key_of(&change.object().metadata);
        match change {
            Change::Deleted(secret) => to.add(format!("{key}/{}", said(secret, ACCOUNT))),
            _ => to.add(key),
        }
    });
    let (to, secrets) = (queue.clone(), caches.account_tokens.clone());
    caches.service_accounts.on_change(move |change| {
        let Change::Deleted(account) = change else { return };
        of_account(&secrets, account).iter().for_each(|secret| to.add(key_of(&secret.metadata)));
    });
}

fn of_account(secrets: &Informer<Secret>, account: &ServiceAccount) -> Vec<Arc<Secret>> {
    let name = account.name_any();
    let all = secrets.in_namespace(account.metadata.namespace.as_deref().unwrap_or_default());
    all.into_iter().filter(|secret| said(secret, ACCOUNT) == name).collect()
}

fn said<'a>(secret: &'a Secret, key: &str) -> &'a str {
    secret.metadata.annotations.as_ref().and_then(|all| all.get(key)).map_or("", String::as_str)
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Pass<Outcome> {
        let mut parts = key.splitn(3, '/');
        let (namespace, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let known = self.caches.account_tokens.get(&format!("{namespace}/{name}"));
        match (known, parts.next()) {
            (Some(secret), None) => self.keep(&secret).await?,
            (None, Some(account)) => self.forget(namespace, account, name).await?,
            _ => {}
        }
        Ok(Outcome::Done)
    }

    async fn keep(&self, secret: &Secret) -> Pass<()> {
        if let Some(account) = self.account(secret).await? {
            return self.fill(secret, &account).await;
        }
        let only_this = Preconditions { uid: secret.uid(), resource_version: None };
        let deleted =
            self.secrets(secret).delete(&secret.name_any(), &DeleteParams::default().preconditions(only_this)).await;
        match deleted {
            // Another one has its name by now.
            Err(error) if machinery::is_conflict(&error) => Ok(()),
            deleted => Ok(machinery::unless_gone(deleted)?),
        }
    }

    /// The ServiceAccount that a Secret names. Before it counts as gone, the server is asked.
    async fn account(&self, secret: &Secret) -> Result<Option<ServiceAccount>, kube::Error> {
        let (name, uid) = (said(secret, ACCOUNT), said(secret, ACCOUNT_UID));
        let is_it = |account: &ServiceAccount| uid.is_empty() || account.metadata.uid.as_deref() == Some(uid);
        let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(known) = self.caches.service_accounts.get(&format!("{namespace}/{name}")).filter(|one| is_it(one)) {
            return Ok(Some(ServiceAccount::clone(&known)));
        }
        Ok(Api::<ServiceAccount>::namespaced(self.client.clone(), namespace).get_opt(name).await?.filter(is_it))
    }

    /// Writes what the Secret lacks into it.
    async fn fill(&self, known: &Secret, account: &ServiceAccount) -> Pass<()> {
        let ca = self.authorities.borrow().root_ca_pem.clone();
        if is_whole(known, &ca) {
            return Ok(());
        }
        let (api, name) = (self.secrets(known), known.name_any());
        let Some(mut live) = api.get_opt(&name).await? else { return Ok(()) };
        // What is newer comes by the watch, too.
        if live.resource_version() != known.resource_version() || is_whole(&live, &ca) {
            return Ok(());
        }
        let namespace = live.namespace().unwrap_or_default();
        let (account, account_uid) = (account.name_any(), account.uid().unwrap_or_default());
        let data = live.data.get_or_insert_default();
        data.insert(CA.into(), ByteString(ca.into_bytes()));
        data.entry(NAMESPACE.into()).or_insert_with(|| ByteString(namespace.clone().into_bytes()));
        if data.get(TOKEN).is_none_or(|token| token.0.is_empty()) {
            let of = SecretToken { namespace: &namespace, account: &account, account_uid: &account_uid, secret: &name };
            match (self.sign)(&of) {
                Ok(token) => drop(data.insert(TOKEN.into(), ByteString(token.into_bytes()))),
                Err(error) => {
                    tracing::error!(namespace, secret = name, error, "the token of a secret cannot be signed");
                    return Ok(());
                }
            }
        }
        let annotations = live.metadata.annotations.get_or_insert_default();
        annotations.insert(ACCOUNT.into(), account);
        annotations.insert(ACCOUNT_UID.into(), account_uid);
        Ok(machinery::unless_gone(api.replace(&name, &PostParams::default(), &live).await)?)
    }

    /// A Secret is gone: its ServiceAccount names it no longer.
    async fn forget(&self, namespace: &str, account: &str, secret: &str) -> Pass<()> {
        if self.caches.service_accounts.get(&format!("{namespace}/{account}")).is_none() {
            return Ok(());
        }
        let api = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace);
        let Some(mut account) = api.get_opt(account).await? else { return Ok(()) };
        let names = account.secrets.get_or_insert_default();
        let before = names.len();
        names.retain(|one| one.name.as_deref() != Some(secret));
        if names.len() == before {
            return Ok(());
        }
        Ok(machinery::unless_gone(api.replace(&account.name_any(), &PostParams::default(), &account).await)?)
    }

    fn secrets(&self, secret: &Secret) -> Api<Secret> {
        Api::namespaced(self.client.clone(), secret.metadata.namespace.as_deref().unwrap_or_default())
    }
}

/// Whether there is a token, with what its user needs beside it.
fn is_whole(secret: &Secret, ca: &str) -> bool {
    let value = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let has = |key: &str| value(key).is_some_and(|value| !value.is_empty());
    value(CA) == Some(ca.as_bytes()) && has(NAMESPACE) && has(TOKEN)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::context::SigningCa;
    use crate::fake_api::FakeApi;

    const SECRET: &str = "/api/v1/namespaces/n/secrets/s";
    const HELD: &str = "/api/v1/namespaces/n/serviceaccounts/a";

    fn secret(annotations: Value, data: Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": { "name": "s", "namespace": "n", "uid": "s1", "resourceVersion": "1", "annotations": annotations },
            "data": data,
        })
    }

    fn account(uid: &str) -> Value {
        let named = json!([{ "name": "s" }, { "name": "other" }]);
        json!({ "metadata": { "name": "a", "namespace": "n", "uid": uid, "resourceVersion": "1" }, "secrets": named })
    }

    /// With what the cache has.
    fn controller(api: &FakeApi, secret: Option<&Value>, account: Option<&Value>) -> Controller {
        let caches = Caches::default();
        secret.into_iter().for_each(|one| caches.account_tokens.apply(serde_json::from_value(one.clone()).unwrap()));
        account.into_iter().for_each(|one| caches.service_accounts.apply(serde_json::from_value(one.clone()).unwrap()));
        let signing = SigningCa { certificate_pem: String::new(), key_pem: String::new() };
        let (_, authorities) = watch::channel(Authorities { signing, root_ca_pem: "CA".into() });
        let sign: SignSecretToken = Arc::new(|of: &SecretToken<'_>| {
            Ok(format!("{}/{}/{}/{}", of.namespace, of.account, of.account_uid, of.secret))
        });
        Controller { client: api.client(), caches, authorities, sign }
    }

    fn text(secret: &Value, key: &str) -> String {
        let secret: Secret = serde_json::from_value(secret.clone()).unwrap();
        String::from_utf8(secret.data.unwrap()[key].0.clone()).unwrap()
    }

    #[tokio::test]
    async fn a_secret_gets_the_token_of_its_account() {
        let new = secret(json!({ ACCOUNT: "a", "mine": "kept" }), json!({ "extra": "eA==" }));
        let api = FakeApi::with("1", [(SECRET, new.clone())]);
        controller(&api, Some(&new), Some(&account("a1"))).reconcile("n/s").await.unwrap();
        let written = api.body(&format!("PUT {SECRET}"));
        let values = [CA, NAMESPACE, TOKEN, "extra"].map(|key| text(&written, key));
        assert_eq!(values, ["CA", "n", "n/a/a1/s", "x"]);
        assert_eq!(written["metadata"]["annotations"], json!({ ACCOUNT: "a", ACCOUNT_UID: "a1", "mine": "kept" }));
        // Nothing more to do, and the token is not in the cache.
        let again = controller(&api, Some(&written), Some(&account("a1")));
        again.reconcile("n/s").await.unwrap();
        assert_eq!(api.taken().len(), 1, "{:?}", api.taken());
        let cached = serde_json::to_value(&*again.caches.account_tokens.get("n/s").unwrap()).unwrap();
        assert_eq!(text(&cached, TOKEN), "n");
    }

    #[tokio::test]
    async fn another_ca_is_written_beside_the_same_token() {
        let old = secret(json!({ ACCOUNT: "a" }), json!({ "token": "dA==", "namespace": "bg==", "ca.crt": "b2xk" }));
        let api = FakeApi::with("1", [(SECRET, old.clone())]);
        controller(&api, Some(&old), Some(&account("a1"))).reconcile("n/s").await.unwrap();
        let written = api.body(&format!("PUT {SECRET}"));
        assert_eq!([CA, TOKEN].map(|key| text(&written, key)), ["CA", "t"]);
    }

    #[tokio::test]
    async fn a_secret_goes_with_its_account() {
        let of_earlier = secret(json!({ ACCOUNT: "a", ACCOUNT_UID: "a1" }), json!({}));
        for (live, is_deleted) in [(None, true), (Some("a2"), true), (Some("a1"), false)] {
            let api = match live {
                Some(uid) => FakeApi::with("1", [(HELD, account(uid)), (SECRET, of_earlier.clone())]),
                None => FakeApi::new("1"),
            };
            controller(&api, Some(&of_earlier), None).reconcile("n/s").await.unwrap();
            let deleted = api.taken().contains(&format!("DELETE {SECRET}"));
            assert_eq!(deleted, is_deleted, "{live:?}: {:?}", api.taken());
        }
    }

    #[tokio::test]
    async fn an_account_names_no_secret_that_is_gone() {
        let api = FakeApi::with("1", [(HELD, account("a1"))]);
        controller(&api, None, Some(&account("a1"))).reconcile("n/s/a").await.unwrap();
        assert_eq!(api.body(&format!("PUT {HELD}"))["secrets"], json!([{ "name": "other" }]));
    }

    #[tokio::test]
    async fn a_secret_is_looked_at_when_it_or_its_account_changes() {
        let (caches, queue) = (Caches::default(), WorkQueue::new());
        observe(&caches, &queue);
        let next = async || {
            let key = queue.next().await;
            queue.done(&key);
            key
        };
        caches.service_accounts.apply(serde_json::from_value(account("a1")).unwrap());
        caches.account_tokens.apply(serde_json::from_value(secret(json!({ ACCOUNT: "a" }), json!({}))).unwrap());
        assert_eq!(next().await, "n/s");
        caches.service_accounts.delete("n/a");
        assert_eq!(next().await, "n/s");
        caches.account_tokens.delete("n/s");
        assert_eq!(next().await, "n/s/a");
    }
}
