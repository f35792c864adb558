//! ControllerRevisions: the history of the templates of DaemonSets and StatefulSets.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use machinery::Informer;
use serde_json::json;

use crate::hash::template_hash;
use crate::owner::{self, Claims, controller_reference};
use crate::pod_control::candidates;

/// On pods: the revision that they were made of (its hash for a DaemonSet, its name for a StatefulSet).
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";
/// What the API server puts where none is given.
const DEFAULT_HISTORY_LIMIT: i32 = 10;

/// A workload whose templates are kept as revisions.
pub(crate) trait Revised: Resource<DynamicType = ()> {
    /// On its revisions: the hash of the template.
    const HASH_LABEL: &'static str;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn collisions(&self) -> i32;
    fn history_limit(&self) -> Option<i32>;
}

macro_rules! revised {
    ($kind:ty, $hash_label:expr) => {
        impl Revised for $kind {
            const HASH_LABEL: &'static str = $hash_label;
            fn template(&self) -> Option<&PodTemplateSpec> {
                self.spec.as_ref().map(|spec| &spec.template)
            }
            fn collisions(&self) -> i32 {
                self.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0)
            }
            fn history_limit(&self) -> Option<i32> {
                self.spec.as_ref().and_then(|spec| spec.revision_history_limit)
            }
        }
    };
}

revised!(DaemonSet, REVISION_LABEL);
revised!(StatefulSet, "controller.kubernetes.io/hash");

/// The revisions of a set. Those that nobody controls and that its selector selects become its own: an earlier set of its name
/// left them (`adoptOrphanRevisions`).
pub(crate) async fn claimed<K: Revised>(
    client: &Client,
    cache: &Informer<ControllerRevision>,
    set: &K,
    selector: &LabelSelector,
) -> Result<Vec<Arc<ControllerRevision>>, kube::Error> {
    let Claims { mut owned, adopt, release } = owner::claim(set.meta(), selector, candidates(cache, set.meta()));
    owned.extend(release);
    let adopts = !adopt.is_empty() && owner::may_adopt(client, set).await?;
    let api = Api::<ControllerRevision>::namespaced(client.clone(), &set.namespace().unwrap_or_default());
    for revision in adopt.into_iter().filter(|_| adopts) {
        let patch = Patch::Strategic(owner::adoption(set, &revision.metadata));
        match api.patch(&revision.name_any(), &PatchParams::default(), &patch).await {
            Ok(_) => owned.push(revision),
            Err(error) if machinery::is_not_found(&error) || machinery::is_conflict(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(owned)
}

/// The revision of the present template, numbered after all others.
pub(crate) fn of<K: Revised>(set: &K, known: &[Arc<ControllerRevision>]) -> ControllerRevision {
    let template = set.template().cloned().unwrap_or_default();
    let hash = template_hash(&template, set.collisions());
    let mut data = json!(template);
    if let Some(fields) = data.as_object_mut() {
        fields.insert("$patch".into(), json!("replace"));
    }
    let data = RawExtension(json!({ "spec": { "template": data } }));
    let others = known.iter().filter(|one| one.data.as_ref() != Some(&data)).map(|one| one.revision).max().unwrap_or(0);
    let mut labels = template.metadata.and_then(|meta| meta.labels).unwrap_or_default();
    labels.insert(K::HASH_LABEL.into(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", set.name_any())),
            namespace: set.namespace(),
            labels: Some(labels),
            annotations: set.meta().annotations.clone(),
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        data: Some(data),
        revision: others + 1,
    }
}

/// The names of the oldest of the revisions that are not live, beyond revisionHistoryLimit.
pub(crate) fn surplus<K: Revised>(
    set: &K,
    known: &[Arc<ControllerRevision>],
    is_live: impl Fn(&ControllerRevision) -> bool,
) -> Vec<String> {
    let limit = usize::try_from(set.history_limit().unwrap_or(DEFAULT_HISTORY_LIMIT)).unwrap_or(usize::MAX);
    let mut old: Vec<&Arc<ControllerRevision>> = known.iter().filter(|one| !is_live(one)).collect();
    old.sort_by_key(|one| one.revision);
    let count = old.len().saturating_sub(limit);
    old.into_iter().take(count).map(|one| one.name_any()).collect()
}

/// Makes the wanted revision, or finds the latest with the same template and numbers it last.
/// None: its name is taken by another template, and the set must count a collision.
pub(crate) async fn ensure(
    api: &Api<ControllerRevision>,
    known: &[Arc<ControllerRevision>],
    wanted: ControllerRevision,
) -> Result<Option<Arc<ControllerRevision>>, kube::Error> {
    if let Some(same) = known.iter().filter(|one| one.data == wanted.data).max_by_key(|one| one.revision) {
        if same.revision < wanted.revision {
            let patch = Patch::Merge(json!({ "revision": wanted.revision }));
            api.patch(&same.name_any(), &PatchParams::default(), &patch).await?;
        }
        return Ok(Some(same.clone()));
    }
    match api.create(&PostParams::default(), &wanted).await {
        Ok(made) => Ok(Some(Arc::new(made))),
        Err(error) if machinery::is_already_exists(&error) => {
            let existing = api.get(&wanted.name_any()).await?;
            Ok((existing.data == wanted.data).then(|| Arc::new(existing)))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::context::Caches;
    use crate::fake_api::FakeApi;

    #[tokio::test]
    async fn revisions_that_an_earlier_set_left_are_adopted() {
        let live = json!({ "metadata": { "name": "d", "namespace": "n", "uid": "u" } });
        let set: DaemonSet = serde_json::from_value(live.clone()).unwrap();
        let selector = serde_json::from_value(json!({ "matchLabels": { "app": "d" } })).unwrap();
        let owner = |uid: &str| json!([{ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": uid, "controller": true }]);
        let revision = |name: &str, app: &str, owners: Value| -> ControllerRevision {
            let meta = json!({ "name": name, "namespace": "n", "uid": name, "labels": { "app": app }, "ownerReferences": owners });
            serde_json::from_value(json!({ "metadata": meta, "revision": 1 })).unwrap()
        };
        let all = [
            revision("own", "d", owner("u")),
            revision("left", "d", json!([])),
            revision("of-another", "d", owner("other")),
            revision("not-selected", "e", json!([])),
        ];
        let mut gone = live.clone();
        gone["metadata"]["uid"] = "later".into();
        for (live, wanted) in [(live, vec!["own", "left"]), (gone, vec!["own"])] {
            let api = FakeApi::with("1", [("/apis/apps/v1/namespaces/n/daemonsets/d", live)]);
            let caches = Caches::default();
            all.iter().for_each(|one| caches.revisions.apply(one.clone()));
            let found = claimed(&api.client(), &caches.revisions, &set, &selector).await.unwrap();
            assert_eq!(found.iter().map(|one| one.name_any()).collect::<Vec<_>>(), wanted);
            let patch = "PATCH /apis/apps/v1/namespaces/n/controllerrevisions/left";
            let owners = &api.body(patch)["metadata"]["ownerReferences"];
            assert_eq!(owners.pointer("/0/uid").and_then(Value::as_str), wanted.get(1).map(|_| "u"));
        }
    }
}
