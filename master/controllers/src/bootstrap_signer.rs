//! Bootstrap signer: `kube-public/cluster-info`, which anyone may read, carries a signature by each bootstrap token that is for signing. Who
//! has such a token knows by it that what was read is the cluster's (`kubeadm join`).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use machinery::{Outcome, Retry, WorkQueue};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::context::Context;
use crate::token_cleaner::{ONLY_TOKENS, left};

pub(crate) const NAMESPACE: &str = "kube-public";
const CLUSTER_INFO: &str = "cluster-info";
/// Of the ConfigMaps there that one, as a field selector.
pub(crate) const ONLY_INFO: &str = "metadata.name=cluster-info";
const NAME: &str = "bootstrap-signer";
/// What is signed.
const KUBECONFIG: &str = "kubeconfig";
/// Signatures are beside it, each by its token's ID.
const SIGNATURE: &str = "jws-kubeconfig-";
const TOKEN: &str = "bootstrap-token-";
const WORKERS: usize = 1;

/// Keys of the ConfigMap with their values.
type Data = BTreeMap<String, String>;

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let to = queue.clone();
    caches.cluster_info.on_change(move |_| to.add(CLUSTER_INFO));
    let to = queue.clone();
    caches.bootstrap_tokens.on_change(move |_| to.add(CLUSTER_INFO));
    let client = context.client(NAME);
    context.spawn_workers(NAME, queue, WORKERS, (caches, client), |it, name| async move {
        let (caches, client) = &*it;
        let map = caches.cluster_info.get(&format!("{NAMESPACE}/{name}"));
        let Some(data) = map.as_ref().and_then(|map| map.data.as_ref()) else { return Ok(Outcome::Done) };
        // The caches have no secrets in them: they are read when they are needed.
        let secrets = Api::<Secret>::namespaced(client.clone(), "kube-system");
        let tokens = secrets.list(&ListParams::default().fields(ONLY_TOKENS)).await.map_err(Retry::from)?;
        let Some(changes) = changes(data, &tokens.items, Timestamp::now()) else { return Ok(Outcome::Done) };
        let patch = Patch::Merge(json!({ "data": changes }));
        let maps = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
        match maps.patch(&name, &PatchParams::default(), &patch).await {
            Err(error) if !machinery::is_not_found(&error) => Err(Retry::from(error)),
            _ => Ok(Outcome::Done),
        }
    });
}

/// What to merge into the ConfigMap so that it has the signatures of these tokens and no others; nothing when it has.
fn changes(data: &Data, tokens: &[Secret], now: Timestamp) -> Option<BTreeMap<String, Value>> {
    let content = data.get(KUBECONFIG)?;
    let wanted: Data = tokens.iter().filter_map(|token| signature(content, token, now)).collect();
    let stale = data.keys().filter(|key| key.starts_with(SIGNATURE) && !wanted.contains_key(*key));
    let mut changes: BTreeMap<String, Value> = stale.map(|key| (key.clone(), Value::Null)).collect();
    let missing = wanted.into_iter().filter(|(key, value)| data.get(key) != Some(value));
    changes.extend(missing.map(|(key, value)| (key, Value::String(value))));
    (!changes.is_empty()).then_some(changes)
}

/// The signature by a token, if it is for signing, and its key.
fn signature(content: &str, token: &Secret, now: Timestamp) -> Option<(String, String)> {
    let data = token.data.as_ref()?;
    let field = |key: &str| std::str::from_utf8(&data.get(key)?.0).ok().filter(|text| !text.is_empty());
    let (id, secret) = (field("token-id")?, field("token-secret")?);
    let is_its_own = token.metadata.name.as_deref()?.strip_prefix(TOKEN) == Some(id);
    let is_good = left(token, now).is_none_or(|left| !left.is_zero());
    if !is_its_own || !is_good || field("usage-bootstrap-signing") != Some("true") {
        return None;
    }
    Some((format!("{SIGNATURE}{id}"), detached(content, id, secret)?))
}

/// A JSON Web Signature (HS256) without what it signs, as `kubeadm join` computes it.
fn detached(content: &str, id: &str, secret: &str) -> Option<String> {
    let header = URL_SAFE_NO_PAD.encode(json!({ "alg": "HS256", "kid": id }).to_string());
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(format!("{header}.{}", URL_SAFE_NO_PAD.encode(content)).as_bytes());
    Some(format!("{header}..{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn token(id: &str, others: &[(&str, &str)]) -> Secret {
        let given = [("token-id", id), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-signing", "true")];
        let fields = given.iter().chain(others).map(|(key, value)| ((*key).to_owned(), ByteString((*value).into())));
        let mut secret = Secret { data: Some(fields.collect()), ..Secret::default() };
        secret.metadata.name = Some(format!("bootstrap-token-{id}"));
        secret
    }

    fn data(pairs: &[(&str, &str)]) -> Data {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn changed(data: &Data, tokens: &[Secret]) -> Value {
        json!(changes(data, tokens, NOW.parse().unwrap()))
    }

    /// By Python's hmac, hashlib and base64.
    #[test]
    fn a_signature_is_the_one_that_others_compute() {
        let signed = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9.._ZKoR8mx8R4DBIQtyBhqXwUfYDZiyYCCe4ngyj38USI";
        assert_eq!(detached("hello: keelson\n", "abcdef", "0123456789abcdef").as_deref(), Some(signed));
    }

    #[test]
    fn each_token_for_signing_signs_once() {
        let (info, good) = (data(&[("kubeconfig", "c")]), token("abcdef", &[]));
        let wanted = detached("c", "abcdef", "0123456789abcdef");
        assert_eq!(changed(&info, std::slice::from_ref(&good)), json!({ "jws-kubeconfig-abcdef": wanted }));
        let signed = data(&[("kubeconfig", "c"), ("jws-kubeconfig-abcdef", &wanted.unwrap())]);
        assert_eq!(changed(&signed, std::slice::from_ref(&good)), Value::Null);
        assert_eq!(changed(&data(&[]), &[good]), Value::Null);
    }

    #[test]
    fn other_tokens_do_not_and_what_they_signed_goes() {
        let mut foreign = token("abcdef", &[]);
        foreign.metadata.name = Some("bootstrap-token-000000".into());
        let others = [
            token("aaaaaa", &[("usage-bootstrap-signing", "false")]),
            token("bbbbbb", &[("expiration", "2025-12-31T00:00:00Z")]),
            token("cccccc", &[("expiration", "soon")]),
            token("dddddd", &[("token-secret", "")]),
            foreign,
        ];
        let stale = data(&[("kubeconfig", "c"), ("jws-kubeconfig-aaaaaa", "s"), ("other", "o")]);
        assert_eq!(changed(&stale, &others), json!({ "jws-kubeconfig-aaaaaa": null }));
        let lasting = token("eeeeee", &[("expiration", "2026-01-02T00:00:00Z")]);
        assert!(changed(&stale, &[lasting]).get("jws-kubeconfig-eeeeee").is_some());
    }
}
