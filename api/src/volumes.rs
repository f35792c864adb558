//! Claims and the persistent volumes that fit them (`component-helpers/storage/volume`): what binds them and what places
//! their pods must agree.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, PodSpec};

use crate::affinity::node_selector_matches;
use crate::quantity::Quantity;
use crate::selector::Selector;

/// On a claim: it was bound, whatever its phase says.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or volume: a controller chose the other side, not a person.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim: the node that was chosen for its first pod.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Keeps a claim while a pod uses it.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Keeps a volume while it is bound.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// The class, before there was a field for it.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Whether an object has an annotation.
#[must_use]
pub fn has_annotation(annotations: Option<&BTreeMap<String, String>>, key: &str) -> bool {
    annotations.is_some_and(|all| all.contains_key(key))
}

/// The class that a claim asks for; empty for none.
#[must_use]
pub fn claim_class(claim: &PersistentVolumeClaim) -> &str {
    let old = claim.metadata.annotations.as_ref().and_then(|all| all.get(CLASS));
    let class = old.or_else(|| claim.spec.as_ref()?.storage_class_name.as_ref());
    class.map(String::as_str).unwrap_or_default()
}

/// The class of a volume; empty for none.
#[must_use]
pub fn volume_class(volume: &PersistentVolume) -> &str {
    let old = volume.metadata.annotations.as_ref().and_then(|all| all.get(CLASS));
    let class = old.or_else(|| volume.spec.as_ref()?.storage_class_name.as_ref());
    class.map(String::as_str).unwrap_or_default()
}

/// The claim that a volume is bound to or kept for.
#[must_use]
pub fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// Whether a volume is bound to a claim, or kept for one of its name.
#[must_use]
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(to) = claim_ref(volume) else { return false };
    let meta = &claim.metadata;
    let uid = to.uid.as_deref().unwrap_or_default();
    to.name == meta.name && to.namespace == meta.namespace && (uid.is_empty() || meta.uid.as_deref() == Some(uid))
}

/// Whether a volume's nodes include one.
#[must_use]
pub fn allows_node(volume: &PersistentVolume, labels: &BTreeMap<String, String>, node: &str) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|required| node_selector_matches(required, labels, node))
}

/// The claims that a pod names, in the order of its volumes. Generic ephemeral volumes have one of their own.
pub fn claims<'a>(pod: &'a str, spec: &'a PodSpec) -> impl Iterator<Item = String> + 'a {
    spec.volumes.iter().flatten().filter_map(move |volume| match &volume.persistent_volume_claim {
        Some(source) => Some(source.claim_name.clone()),
        None => volume.ephemeral.as_ref().map(|_| format!("{pod}-{}", volume.name)),
    })
}

/// Why a volume that a claim names cannot be its own; upstream's words.
#[must_use]
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    if volume.metadata.deletion_timestamp.is_some() {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        return Some(format!("the volume is marked for deletion {name:?}"));
    }
    let text = if size(volume) < requested(claim) {
        "requested PV is too small"
    } else if volume_class(volume) != claim_class(claim) {
        "storageClassName does not match"
    } else if attributes_class(volume, claim) {
        "volumeAttributesClassName does not match"
    } else if !modes_agree(volume, claim) {
        "incompatible volumeMode"
    } else if !access_fits(volume, claim) {
        "incompatible accessMode"
    } else {
        return None;
    };
    Some(text.to_owned())
}

/// Where a volume is looked for.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// Anywhere. `delayed`: only one that is kept for the claim; the scheduler chooses others.
    Anywhere {
        /// The class waits for the first consumer.
        delayed: bool,
    },
    /// On a node with these labels and this name, without volumes of these names.
    Node(&'a BTreeMap<String, String>, &'a str, &'a [String]),
}

/// The volume for a claim: the one that is kept for it, or the smallest that fits.
#[must_use]
pub fn find<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl IntoIterator<Item = &'a PersistentVolume>,
    place: Place<'_>,
) -> Option<&'a PersistentVolume> {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = selector.map(Selector::from_object).transpose().ok()?;
    let no_labels = BTreeMap::new();
    let mut smallest: Option<&PersistentVolume> = None;
    for volume in volumes {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let is_taken = claim_ref(volume).is_some() && !is_bound_to(volume, claim);
        let is_excluded = matches!(place, Place::Node(_, _, excluded) if excluded.iter().any(|other| other == name));
        let is_wrong = size(volume) < requested(claim)
            || !modes_agree(volume, claim)
            || attributes_class(volume, claim)
            || volume.metadata.deletion_timestamp.is_some();
        if is_taken || is_excluded || is_wrong {
            continue;
        }
        let is_here = match place {
            Place::Node(labels, node, _) => allows_node(volume, labels, node),
            Place::Anywhere { .. } => true,
        };
        if is_bound_to(volume, claim) {
            return is_here.then_some(volume);
        }
        let labels = volume.metadata.labels.as_ref().unwrap_or(&no_labels);
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let fits = !matches!(place, Place::Anywhere { delayed: true })
            && phase == Some("Available")
            && selector.as_ref().is_none_or(|selector| selector.matches(labels))
            && volume_class(volume) == claim_class(claim)
            && access_fits(volume, claim);
        if fits && is_here && smallest.is_none_or(|least| size(volume) < size(least)) {
            smallest = Some(volume);
        }
    }
    smallest
}

fn size(volume: &PersistentVolume) -> Quantity {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    read(capacity.and_then(|capacity| capacity.get("storage")))
}

fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    read(requests.and_then(|requests| requests.get("storage")))
}

fn read(text: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> Quantity {
    text.and_then(|text| Quantity::read(text).ok()).unwrap_or(Quantity::ZERO)
}

/// Whether the classes of attributes differ.
fn attributes_class(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of_volume = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let of_claim = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    of_volume.unwrap_or_default() != of_claim.unwrap_or_default()
}

/// Whether both are file systems, or both blocks.
fn modes_agree(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of_volume = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    let of_claim = claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    of_volume.unwrap_or("Filesystem") == of_claim.unwrap_or("Filesystem")
}

/// Whether the volume can be mounted in every way that is asked for.
fn access_fits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let can = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    let asked = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    asked.iter().all(|mode| can.contains(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn volume(name: &str, storage: &str, more: Value) -> PersistentVolume {
        let mut volume = json!({
            "metadata": {"name": name, "labels": {"tier": "fast"}},
            "spec": {"capacity": {"storage": storage}, "accessModes": ["ReadWriteOnce"], "storageClassName": "c"},
            "status": {"phase": "Available"}
        });
        for (field, value) in more.as_object().unwrap() {
            volume["spec"][field] = value.clone();
        }
        serde_json::from_value(volume).unwrap()
    }

    fn claim(storage: &str, more: Value) -> PersistentVolumeClaim {
        let mut claim = json!({
            "metadata": {"name": "x", "namespace": "ns", "uid": "u"},
            "spec": {"resources": {"requests": {"storage": storage}}, "accessModes": ["ReadWriteOnce"], "storageClassName": "c"}
        });
        for (field, value) in more.as_object().unwrap() {
            claim["spec"][field] = value.clone();
        }
        serde_json::from_value(claim).unwrap()
    }

    fn found(claim: &PersistentVolumeClaim, volumes: &[PersistentVolume], place: Place<'_>) -> Option<String> {
        find(claim, volumes, place).and_then(|volume| volume.metadata.name.clone())
    }

    const ANYWHERE: Place<'static> = Place::Anywhere { delayed: false };

    #[test]
    fn the_smallest_that_fits() {
        let all = [
            volume("small", "1Gi", json!({})),
            volume("large", "8Gi", json!({})),
            volume("right", "2Gi", json!({})),
            volume("block", "2Gi", json!({"volumeMode": "Block"})),
            volume("taken", "2Gi", json!({"claimRef": {"name": "y", "namespace": "ns"}})),
        ];
        let asks = |storage: &str, more: Value| found(&claim(storage, more), &all, ANYWHERE);
        assert_eq!(asks("1500Mi", json!({})).as_deref(), Some("right"));
        assert_eq!(asks("9Gi", json!({})), None);
        assert_eq!(asks("1Gi", json!({"volumeMode": "Block"})).as_deref(), Some("block"));
        assert_eq!(asks("1Gi", json!({"accessModes": ["ReadWriteMany"]})), None);
        assert_eq!(asks("1Gi", json!({"storageClassName": ""})), None);
        assert_eq!(asks("1Gi", json!({"selector": {"matchLabels": {"tier": "slow"}}})), None);
        assert_eq!(asks("1Gi", json!({"selector": {"matchLabels": {"tier": "fast"}}})).as_deref(), Some("small"));
        assert_eq!(found(&claim("1Gi", json!({})), &all, Place::Anywhere { delayed: true }), None);
    }

    #[test]
    fn one_that_is_kept_for_the_claim_and_where_it_lies() {
        let term = json!({"matchExpressions": [{"key": "host", "operator": "In", "values": ["a"]}]});
        let here = json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}});
        let mut kept = here.clone();
        kept["claimRef"] = json!({"name": "x", "namespace": "ns"});
        let all = [volume("plain", "2Gi", here), volume("kept", "8Gi", kept)];
        let labels = |host: &str| BTreeMap::from([("host".to_owned(), host.to_owned())]);
        let asks = claim("1Gi", json!({}));
        assert_eq!(found(&asks, &all, Place::Anywhere { delayed: true }).as_deref(), Some("kept"));
        assert_eq!(found(&asks, &all[..1], Place::Node(&labels("a"), "n", &[])).as_deref(), Some("plain"));
        assert_eq!(found(&asks, &all[..1], Place::Node(&labels("b"), "n", &[])), None);
        assert_eq!(found(&asks, &all[..1], Place::Node(&labels("a"), "n", &["plain".to_owned()])), None);
    }

    #[test]
    fn why_a_volume_does_not_fit() {
        let why = |v: Value, c: Value| mismatch(&volume("v", "1Gi", v), &claim("1Gi", c));
        assert_eq!(why(json!({}), json!({})), None);
        assert_eq!(why(json!({"storageClassName": "d"}), json!({})).unwrap(), "storageClassName does not match");
        assert_eq!(why(json!({"volumeMode": "Block"}), json!({})).unwrap(), "incompatible volumeMode");
        assert_eq!(why(json!({}), json!({"accessModes": ["ReadWriteMany"]})).unwrap(), "incompatible accessMode");
        let text = mismatch(&volume("v", "1Gi", json!({})), &claim("2Gi", json!({})));
        assert_eq!(text.unwrap(), "requested PV is too small");
    }
}
