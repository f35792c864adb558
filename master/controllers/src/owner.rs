//! ownerReferences: who controls an object, adopting and releasing.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Client, Resource};
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

/// Whether an owner may still adopt, by the API server's word: the cache may not show yet that it goes, or that another one has
/// its name, and what it adopts then is deleted with it (`RecheckDeletionTimestamp`). Asked once before the first adoption of a pass.
///
/// # Errors
/// The API server's.
pub async fn may_adopt<K: Resource<DynamicType = ()>>(client: &Client, owner: &K) -> Result<bool, kube::Error> {
    let meta = owner.meta();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &ApiResource::erase::<K>(&()));
    let live = api.get_metadata_opt(meta.name.as_deref().unwrap_or_default()).await?;
    Ok(live.is_some_and(|live| live.metadata.uid == meta.uid && live.metadata.deletion_timestamp.is_none()))
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use k8s_openapi::api::apps::v1::ReplicaSet;
    use serde_json::{Value, json};

    use super::may_adopt;
    use crate::testing;

    #[tokio::test]
    async fn an_owner_that_is_gone_or_going_adopts_nothing() {
        let owner = |more: Value| {
            let mut meta = json!({ "name": "x", "namespace": "n", "uid": "u" });
            meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta })
        };
        let cached: ReplicaSet = serde_json::from_value(owner(json!({}))).unwrap();
        let asked = async |live: Value| {
            let client = testing::client(&Arc::new(Mutex::new(live)), |_, _| {});
            may_adopt(&client, &cached).await.unwrap()
        };
        assert!(asked(owner(json!({ "labels": { "a": "b" } }))).await);
        assert!(!asked(owner(json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" }))).await);
        assert!(!asked(owner(json!({ "uid": "another" }))).await);
        assert!(!asked(Value::Null).await);
    }
}
