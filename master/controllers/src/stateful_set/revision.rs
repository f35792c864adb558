//! ControllerRevisions of a StatefulSet, and the pods made of their templates. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::ResourceExt;
use serde_json::json;

use super::claims;
use crate::hash::template_hash;
use crate::owner::controller_reference;
use crate::pods;

/// On pods: the name of their revision.
pub(super) const REVISION_LABEL: &str = "controller-revision-hash";
/// On revisions: the hash of the template.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";
pub(super) const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The name of the revision that a pod was made of.
pub(super) fn revision_of(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL)).map_or("", String::as_str)
}

/// The revision of the present template, numbered after all others.
pub(super) fn of(set: &StatefulSet, known: &[Arc<ControllerRevision>]) -> ControllerRevision {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let hash = template_hash(&template, collisions);
    let mut data = json!(template);
    if let Some(fields) = data.as_object_mut() {
        fields.insert("$patch".into(), json!("replace"));
    }
    let data = RawExtension(json!({ "spec": { "template": data } }));
    let others = known.iter().filter(|one| one.data.as_ref() != Some(&data)).map(|one| one.revision).max().unwrap_or(0);
    let mut labels = template.metadata.and_then(|meta| meta.labels).unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", set.name_any())),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: set.metadata.annotations.clone(),
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        data: Some(data),
        revision: others + 1,
    }
}

/// The template that a revision keeps.
pub(super) fn template(revision: &ControllerRevision) -> PodTemplateSpec {
    let data = revision.data.as_ref().and_then(|data| data.0.pointer("/spec/template"));
    data.and_then(|data| serde_json::from_value(data.clone()).ok()).unwrap_or_default()
}

/// The names of old revisions that are too many.
pub(super) fn surplus(
    set: &StatefulSet,
    known: &[Arc<ControllerRevision>],
    live: [&str; 2],
    pods: &[Arc<Pod>],
) -> Vec<String> {
    let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let Ok(limit) = usize::try_from(limit) else { return Vec::new() };
    let is_live = |name: &str| live.contains(&name) || pods.iter().any(|pod| revision_of(pod) == name);
    let mut old: Vec<&Arc<ControllerRevision>> = known.iter().filter(|one| !is_live(&one.name_any())).collect();
    old.sort_by_key(|one| one.revision);
    let count = old.len().saturating_sub(limit);
    old.into_iter().take(count).map(|one| one.name_any()).collect()
}

/// A member of the set.
pub(super) fn pod(set: &StatefulSet, revision: &ControllerRevision, ordinal: i32) -> Pod {
    let name = format!("{}-{ordinal}", set.name_any());
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut pod = pods::from_template(&template(revision), namespace, "", controller_reference(set));
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME_LABEL.into(), name.clone());
    labels.insert(POD_INDEX_LABEL.into(), ordinal.to_string());
    labels.insert(REVISION_LABEL.into(), revision.name_any());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone()).filter(|name| !name.is_empty());
    let volumes = claims::names(set, ordinal);
    if !volumes.is_empty() {
        let all = spec.volumes.get_or_insert_default();
        all.retain(|volume| !volumes.iter().any(|(name, _)| *name == volume.name));
        all.splice(0..0, volumes.into_iter().map(|(name, claim_name)| volume(name, claim_name)));
    }
    pod
}

fn volume(name: String, claim_name: String) -> Volume {
    let claim = PersistentVolumeClaimVolumeSource { claim_name, read_only: None };
    Volume { name, persistent_volume_claim: Some(claim), ..Volume::default() }
}
