//! Token cleaner: expired bootstrap tokens are deleted when they expire.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use machinery::{Outcome, Retry, WorkQueue, key_of, split_key};

use crate::context::Context;

/// The key of a bootstrap token's Secret that says when it expires (RFC 3339).
pub(crate) const EXPIRATION: &str = "expiration";
/// The Secrets that are bootstrap tokens, as a field selector.
pub(crate) const ONLY_TOKENS: &str = "type=bootstrap.kubernetes.io/token";
const NAME: &str = "token-cleaner";
const WORKERS: usize = 1;

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let to = queue.clone();
    caches.bootstrap_tokens.on_change(move |change| to.add(key_of(&change.object().metadata)));
    let client = context.client(NAME);
    context.spawn_workers(NAME, queue, WORKERS, (caches, client), |it, key| async move {
        let (caches, client) = &*it;
        let Some(secret) = caches.bootstrap_tokens.get(&key) else { return Ok(Outcome::Done) };
        let Some(left) = left(&secret, Timestamp::now()) else { return Ok(Outcome::Done) };
        if !left.is_zero() {
            return Ok(Outcome::After(left));
        }
        let (namespace, name) = split_key(&key);
        let only_this = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
        let api = Api::<Secret>::namespaced(client.clone(), namespace);
        match api.delete(name, &DeleteParams::default().preconditions(only_this)).await {
            Err(error) if !machinery::is_not_found(&error) => Err(Retry::from(error)),
            _ => Ok(Outcome::Done),
        }
    });
}

/// How long the token is still good; none when it does not expire. One whose expiration cannot be read has expired.
pub(crate) fn left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let text = secret.data.as_ref()?.get(EXPIRATION)?;
    let expires = std::str::from_utf8(&text.0).ok().and_then(|text| text.trim().parse::<Timestamp>().ok());
    Some(expires.map_or(Duration::ZERO, |at| Duration::try_from(at.duration_since(now)).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_until_its_expiration() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let secret = |text: Option<&str>| Secret {
            data: text.map(|text| [(EXPIRATION.to_owned(), k8s_openapi::ByteString(text.as_bytes().to_vec()))].into()),
            ..Secret::default()
        };
        assert_eq!(left(&secret(None), now), None);
        assert_eq!(left(&secret(Some("2026-01-01T00:01:00Z")), now), Some(Duration::from_secs(60)));
        assert_eq!(left(&secret(Some("2025-12-31T23:59:59Z")), now), Some(Duration::ZERO));
        assert_eq!(left(&secret(Some("soon")), now), Some(Duration::ZERO));
    }
}
