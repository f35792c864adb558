//! Keeps claims that pods use, and volumes that claims have: each has a finalizer that goes when nobody needs it any more
//! (`pkg/controller/volume/pvcprotection` and `pvprotection`).

use std::collections::BTreeSet;
use std::sync::Arc;

use api::volumes::{CLAIM_PROTECTION, VOLUME_PROTECTION, claims};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use machinery::{Change, Outcome, Retry, WorkQueue, key_of, split_key};

use crate::context::{Caches, Context};
use crate::pods;

const CLAIMS: &str = "pvc-protection-controller";
const VOLUMES: &str = "pv-protection-controller";
const WORKERS: usize = 1;

/// What the finalizer of an object is in for.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Add,
    Remove,
    /// Only when it is not in use.
    RemoveUnused,
}

fn step(deleting: bool, finalizers: &[String], finalizer: &str) -> Option<Step> {
    match (deleting, finalizers.iter().any(|one| one == finalizer)) {
        (false, false) => Some(Step::Add),
        (true, true) => Some(Step::RemoveUnused),
        _ => None,
    }
}

pub(crate) fn start(context: &mut Context) {
    let (queue, caches) = (WorkQueue::new(), context.caches.clone());
    observe_claims(&caches, &queue);
    let client = context.client(CLAIMS);
    context.spawn_workers(CLAIMS, queue, WORKERS, (caches, client), |it, key| async move {
        let (caches, client) = &*it;
        let Some(claim) = caches.claims.get(&key) else { return Ok(Outcome::Done) };
        let (namespace, _) = split_key(&key);
        let wanted = step(claim.metadata.deletion_timestamp.is_some(), claim.finalizers(), CLAIM_PROTECTION);
        let wanted = match wanted {
            Some(Step::RemoveUnused) if is_used(caches, client, &claim).await? => None,
            Some(Step::RemoveUnused) => Some(Step::Remove),
            other => other,
        };
        let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
        write(&api, PersistentVolumeClaim::clone(&claim), CLAIM_PROTECTION, wanted).await
    });
    let (queue, caches) = (WorkQueue::new(), context.caches.clone());
    let to = queue.clone();
    caches.volumes.on_change(move |change| to.add(key_of(&change.object().metadata)));
    let client = context.client(VOLUMES);
    context.spawn_workers(VOLUMES, queue, WORKERS, (caches, client), |it, key| async move {
        let (caches, client) = &*it;
        let Some(volume) = caches.volumes.get(&key) else { return Ok(Outcome::Done) };
        let wanted = step(volume.metadata.deletion_timestamp.is_some(), volume.finalizers(), VOLUME_PROTECTION);
        let is_bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let wanted = match wanted {
            Some(Step::RemoveUnused) => (!is_bound).then_some(Step::Remove),
            other => other,
        };
        let api = Api::<PersistentVolume>::all(client.clone());
        write(&api, PersistentVolume::clone(&volume), VOLUME_PROTECTION, wanted).await
    });
}

/// Claims that change, and those of pods that go.
fn observe_claims(caches: &Caches, queue: &Arc<WorkQueue>) {
    let to = queue.clone();
    caches.claims.on_change(move |change| to.add(key_of(&change.object().metadata)));
    let to = queue.clone();
    caches.pods.on_change(move |change| {
        if matches!(change, Change::Deleted(_)) {
            used(change.object()).for_each(|key| to.add(key));
        }
    });
}

/// Keys of the claims that a pod names.
fn used(pod: &Pod) -> impl Iterator<Item = String> + '_ {
    let (name, namespace) = (pod.metadata.name.as_deref().unwrap_or_default(), pod.namespace().unwrap_or_default());
    let spec = pod.spec.as_ref();
    spec.into_iter().flat_map(move |spec| claims(name, spec)).map(move |claim| format!("{namespace}/{claim}"))
}

/// Whether a pod that has a node uses a claim. Others cannot start any more: their node does not let them.
async fn is_used(caches: &Caches, client: &Client, claim: &PersistentVolumeClaim) -> Result<bool, Retry<kube::Error>> {
    let key = key_of(&claim.metadata);
    let uses = |pod: &Pod| pods::node_name(pod).is_some() && used(pod).any(|other| other == key);
    if caches.pods.indexed(&format!("claim/{key}")).iter().any(|pod| uses(pod)) {
        return Ok(true);
    }
    // The cache may not have the newest pod yet, and nothing can be undone.
    let (namespace, _) = split_key(&key);
    let live = Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?;
    Ok(live.items.iter().any(uses))
}

/// Adds or removes a finalizer, under the version that was seen.
async fn write<K>(
    api: &Api<K>,
    mut object: K,
    finalizer: &str,
    wanted: Option<Step>,
) -> Result<Outcome, Retry<kube::Error>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let Some(wanted) = wanted else { return Ok(Outcome::Done) };
    let finalizers = object.finalizers_mut();
    finalizers.retain(|one| one != finalizer);
    if wanted == Step::Add {
        finalizers.push(finalizer.to_owned());
    }
    match api.replace(&object.name_any(), &PostParams::default(), &object).await {
        Err(error) if !machinery::is_not_found(&error) => Err(Retry::from(error)),
        _ => Ok(Outcome::Done),
    }
}

/// The claims of pods, for the index of the shared cache: `claim/NAMESPACE/NAME`.
pub(crate) fn claim_groups(pod: &Pod) -> BTreeSet<String> {
    used(pod).map(|key| format!("claim/{key}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_kept() {
        let has = [CLAIM_PROTECTION.to_owned()];
        assert_eq!(step(false, &[], CLAIM_PROTECTION), Some(Step::Add));
        assert_eq!(step(false, &has, CLAIM_PROTECTION), None);
        assert_eq!(step(true, &has, CLAIM_PROTECTION), Some(Step::RemoveUnused));
        assert_eq!(step(true, &[], CLAIM_PROTECTION), None);
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"containers": [], "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "x"}},
                {"name": "b", "ephemeral": {}}, {"name": "c", "emptyDir": {}}]}
        }))
        .unwrap();
        assert_eq!(used(&pod).collect::<Vec<_>>(), ["ns/x", "ns/p-b"]);
    }
}
