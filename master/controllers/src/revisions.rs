//! ControllerRevisions: the history of the templates of DaemonSets and StatefulSets.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use crate::hash::template_hash;
use crate::owner::controller_reference;

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
