//! The PersistentVolumeClaims of a StatefulSet's members, and who owns them. Pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;

use crate::owner::controller_reference;

/// The name in the template and that of the claim, for each claim of a member.
pub(super) fn names(set: &StatefulSet, ordinal: i32) -> Vec<(String, String)> {
    let templates = set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default();
    let name = |claim: &PersistentVolumeClaim| {
        let name = claim.name_any();
        let full = format!("{name}-{}-{ordinal}", set.name_any());
        (name, full)
    };
    templates.iter().map(name).collect()
}

/// Whether a claim is called as one of a member is.
pub(super) fn has(set: &StatefulSet, claim: &str) -> bool {
    let templates = set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default();
    let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    templates.iter().any(|template| {
        let first = format!("{}-{}-", template.name_any(), set.name_any());
        claim.strip_prefix(first.as_str()).is_some_and(is_number)
    })
}

/// The claims of a member.
pub(super) fn of(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let templates = spec.volume_claim_templates.as_deref().unwrap_or_default();
    let claim = |(template, (_, name)): (&PersistentVolumeClaim, (String, String))| {
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: set.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: template.metadata.annotations.clone(),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    };
    templates.iter().zip(names(set, ordinal)).map(claim).collect()
}

/// What the claims go with: the set, or a member that is one too many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Goes {
    with_set: bool,
    with_pod: bool,
}

fn goes(set: &StatefulSet) -> Goes {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let Some(policy) = policy else { return Goes::default() };
    let delete = |said: &Option<String>| said.as_deref() == Some("Delete");
    Goes { with_set: delete(&policy.when_deleted), with_pod: delete(&policy.when_scaled) }
}

/// The owners that a claim should have instead of its own; none when these are right, or when others look after it.
pub(super) fn owners(
    set: &StatefulSet,
    pod: &Pod,
    is_surplus: bool,
    claim: &ObjectMeta,
) -> Option<Vec<OwnerReference>> {
    let references = claim.owner_references.as_deref().unwrap_or_default();
    let (of_set, of_pod) = (controller_reference(set), controller_reference(pod));
    let same = |one: &OwnerReference, other: &OwnerReference| {
        (&one.api_version, &one.kind, &one.name) == (&other.api_version, &other.kind, &other.name)
    };
    let is_stale = |one: &OwnerReference| [&of_set, &of_pod].iter().any(|own| same(one, own) && one.uid != own.uid);
    if references.iter().any(is_stale) {
        return None;
    }
    let is_ours = |one: &OwnerReference| same(one, &of_set) || same(one, &of_pod);
    let (ours, mut others): (Vec<_>, Vec<_>) = references.iter().cloned().partition(is_ours);
    let goes = goes(set);
    let is_led = others.iter().any(|one| one.controller == Some(true));
    let wanted = match goes {
        _ if is_led && goes != Goes::default() => None,
        Goes { with_pod: true, .. } if is_surplus => Some(of_pod),
        Goes { with_set: true, .. } => Some(of_set),
        _ => None,
    };
    if ours.iter().eq(wanted.iter()) {
        return None;
    }
    others.extend(wanted);
    Some(others)
}

/// Whether a claim is about to go with an earlier pod of this name.
pub(super) fn is_stale(set: &StatefulSet, pod: &str, claim: &ObjectMeta) -> bool {
    let owners = claim.owner_references.iter().flatten();
    goes(set).with_pod && owners.into_iter().any(|owner| owner.kind == "Pod" && owner.name == pod)
}
