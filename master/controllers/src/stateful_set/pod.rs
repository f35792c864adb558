//! The pods of a StatefulSet, made of the templates that its revisions keep. Pure.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};
use kube::ResourceExt;

use super::claims;
use crate::owner::controller_reference;
use crate::pods;
use crate::revisions::REVISION_LABEL;

pub(super) const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The name of the revision that a pod was made of.
pub(super) fn revision_of(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL)).map_or("", String::as_str)
}

/// The template that a revision keeps.
fn template(revision: &ControllerRevision) -> PodTemplateSpec {
    let data = revision.data.as_ref().and_then(|data| data.0.pointer("/spec/template"));
    data.and_then(|data| serde_json::from_value(data.clone()).ok()).unwrap_or_default()
}

/// A member of the set.
pub(super) fn of(set: &StatefulSet, revision: &ControllerRevision, ordinal: i32) -> Pod {
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
