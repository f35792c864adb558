//! ownerReferences: who controls an object, adopting and releasing.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::Resource;
use serde_json::{Value, json};

/// The owner with `controller: true`.
#[must_use]
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The reference that makes `owner` the controller of another object.
#[must_use]
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether a selector selects these labels; the empty selector selects nothing here, as for all workloads.
#[must_use]
pub fn selects(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let is_empty = selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
    let none = BTreeMap::new();
    !is_empty && api::selector::label_selector_matches(selector, labels.unwrap_or(&none))
}

/// What becomes of the objects that an owner may claim.
#[derive(Debug)]
pub struct Claims<K> {
    /// Owned, and still selected.
    pub owned: Vec<Arc<K>>,
    /// Without controller, but selected.
    pub adopt: Vec<Arc<K>>,
    /// Owned, but no longer selected.
    pub release: Vec<Arc<K>>,
}

/// Sorts objects by whether the owner keeps, adopts or releases them. An owner that is being deleted does neither of the
/// latter; objects that are being deleted are not adopted.
#[must_use]
pub fn claim<K: Resource>(owner: &ObjectMeta, selector: &LabelSelector, objects: Vec<Arc<K>>) -> Claims<K> {
    let mut claims = Claims { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    let owner_goes = owner.deletion_timestamp.is_some();
    for object in objects {
        let meta = object.meta();
        let selected = selects(selector, meta.labels.as_ref());
        match controller_of(meta) {
            Some(controller) if Some(&controller.uid) != owner.uid.as_ref() => (),
            Some(_) if selected || owner_goes => claims.owned.push(object),
            Some(_) => claims.release.push(object),
            None if selected && !owner_goes && meta.deletion_timestamp.is_none() => claims.adopt.push(object),
            None => (),
        }
    }
    claims
}

/// The strategic merge patch by which `owner` becomes the controller of the object.
#[must_use]
pub fn adoption<K: Resource<DynamicType = ()>>(owner: &K, object: &ObjectMeta) -> Value {
    json!({"metadata": {"uid": object.uid, "ownerReferences": [controller_reference(owner)]}})
}

/// The strategic merge patch by which the owner with this uid lets the object go.
#[must_use]
pub fn release(owner: &ObjectMeta, object: &ObjectMeta) -> Value {
    let gone = json!({"$patch": "delete", "uid": owner.uid});
    json!({"metadata": {"uid": object.uid, "ownerReferences": [gone]}})
}
