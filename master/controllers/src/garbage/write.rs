//! What the collector reads again and writes.

use std::collections::BTreeSet;

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::{Api, Client};
use serde_json::json;

use super::graph::{Object, Policy};
use crate::discovery::KnownKind;

/// Writes with the collector's identity.
pub(super) struct Writer {
    client: Client,
}

impl Writer {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    fn api(&self, kind: &KnownKind, namespace: &str) -> Api<DynamicObject> {
        if kind.namespaced {
            Api::namespaced_with(self.client.clone(), namespace, &kind.resource)
        } else {
            Api::all_with(self.client.clone(), &kind.resource)
        }
    }

    /// Whether an object with this name and uid exists. That the API server does not have its kind, or its version, is no answer.
    pub(super) async fn exists(
        &self,
        kind: &KnownKind,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<bool, kube::Error> {
        match self.api(kind, namespace).get_metadata(name).await {
            Ok(found) => Ok(found.metadata.uid.as_deref() == Some(uid)),
            Err(error) if is_about(&error, name) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes the object with the owners that were decided on: with others the decision is made again, when the watch shows
    /// them. Other changes must not keep it alive.
    pub(super) async fn delete(&self, kind: &KnownKind, object: &Object, policy: Policy) -> Result<(), kube::Error> {
        let params = |resource_version: Option<String>| DeleteParams {
            propagation_policy: Some(match policy {
                Policy::Background => PropagationPolicy::Background,
                Policy::Foreground => PropagationPolicy::Foreground,
                Policy::Orphan => PropagationPolicy::Orphan,
            }),
            preconditions: Some(Preconditions { uid: Some(object.uid.clone()), resource_version }),
            ..DeleteParams::default()
        };
        let api = self.api(kind, &object.namespace);
        // The picture may be old: an owner may have been added meanwhile.
        let Some(now) = api.get_metadata_opt(&object.name).await? else { return Ok(()) };
        let owners = now.metadata.owner_references.unwrap_or_default();
        let same = now.metadata.uid.as_ref() == Some(&object.uid)
            && owners.iter().map(|owner| &owner.uid).eq(object.owners.iter().map(|owner| &owner.uid));
        if !same {
            return Ok(());
        }
        let deleted = api.delete(&object.name, &params(now.metadata.resource_version)).await;
        if !deleted.as_ref().is_err_and(machinery::is_conflict) {
            return machinery::unless_gone(deleted);
        }
        let Some(then) = api.get_metadata_opt(&object.name).await? else { return Ok(()) };
        let is_as_decided = then.metadata.uid.as_ref() == Some(&object.uid)
            && then.metadata.owner_references.unwrap_or_default() == owners;
        if is_as_decided { machinery::unless_gone(api.delete(&object.name, &params(None)).await) } else { Ok(()) }
    }

    /// Takes owners off the object.
    pub(super) async fn drop_owners(
        &self,
        kind: &KnownKind,
        object: &Object,
        uids: &BTreeSet<String>,
    ) -> Result<(), kube::Error> {
        let api = self.api(kind, &object.namespace);
        let Some(now) = api.get_metadata_opt(&object.name).await? else { return Ok(()) };
        if now.metadata.uid.as_ref() != Some(&object.uid) {
            return Ok(());
        }
        let mut owners = now.metadata.owner_references.unwrap_or_default();
        let before = owners.len();
        owners.retain(|owner| !uids.contains(&owner.uid));
        if owners.len() == before {
            return Ok(());
        }
        let patch = json!({"metadata": {"resourceVersion": now.metadata.resource_version, "ownerReferences": owners}});
        machinery::unless_gone(api.patch_metadata(&object.name, &PatchParams::default(), &Patch::Merge(patch)).await)
    }

    /// The object no longer blocks the deletion of this owner.
    pub(super) async fn unblock(&self, kind: &KnownKind, object: &Object, owner: &str) -> Result<(), kube::Error> {
        let api = self.api(kind, &object.namespace);
        let Some(now) = api.get_metadata_opt(&object.name).await? else { return Ok(()) };
        let mut owners = now.metadata.owner_references.unwrap_or_default();
        for reference in owners.iter_mut().filter(|reference| reference.uid == owner) {
            reference.block_owner_deletion = Some(false);
        }
        let patch = json!({"metadata": {"resourceVersion": now.metadata.resource_version, "ownerReferences": owners}});
        machinery::unless_gone(api.patch_metadata(&object.name, &PatchParams::default(), &Patch::Merge(patch)).await)
    }

    /// Takes one finalizer off the object.
    pub(super) async fn drop_finalizer(
        &self,
        kind: &KnownKind,
        object: &Object,
        finalizer: &str,
    ) -> Result<(), kube::Error> {
        let api = self.api(kind, &object.namespace);
        let Some(now) = api.get_metadata_opt(&object.name).await? else { return Ok(()) };
        if now.metadata.uid.as_ref() != Some(&object.uid) {
            return Ok(());
        }
        let mut finalizers = now.metadata.finalizers.unwrap_or_default();
        let before = finalizers.len();
        finalizers.retain(|one| one != finalizer);
        if finalizers.len() == before {
            return Ok(());
        }
        let patch = json!({"metadata": {"resourceVersion": now.metadata.resource_version, "finalizers": finalizers}});
        machinery::unless_gone(api.patch_metadata(&object.name, &PatchParams::default(), &Patch::Merge(patch)).await)
    }
}

/// Whether it is the object that was not found, and not the resource.
fn is_about(error: &kube::Error, name: &str) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let named = status.details.as_ref().map(|details| details.name.as_str());
    machinery::is_not_found(error) && named == Some(name)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::Method;
    use kube::api::ApiResource;
    use serde_json::{Value, json};

    use super::super::graph::{Object, Owner, Policy};
    use super::{Writer, is_about};
    use crate::discovery::KnownKind;
    use crate::testing;

    #[test]
    fn a_kind_that_is_not_served_is_no_object_that_is_gone() {
        let not_found = |name: &str| {
            let status = json!({"code": 404, "reason": "NotFound", "details": {"name": name}});
            kube::Error::Api(serde_json::from_value(status).unwrap())
        };
        assert!(is_about(&not_found("a"), "a"));
        assert!(!is_about(&not_found(""), "a"));
    }

    fn owner(uid: &str) -> Value {
        json!({ "apiVersion": "v1", "kind": "Foo", "name": uid, "uid": uid })
    }

    /// What is left of an object with the owner `a` that changes just before it is deleted.
    async fn deleted(change: fn(&mut Value)) -> Value {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "x", "namespace": "n", "uid": "u", "resourceVersion": "5", "ownerReferences": [owner("a")] },
        });
        let server: testing::Shared = Arc::new(Mutex::new(object));
        let client = testing::client(&server, move |method, object| {
            if *method == Method::DELETE && object["metadata"]["resourceVersion"] == "5" {
                object["metadata"]["resourceVersion"] = "6".into();
                change(object);
            }
        });
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::ConfigMap>(&());
        let kind = KnownKind { resource, namespaced: true, watchable: true };
        let a =
            Owner { uid: "a".into(), api_version: "v1".into(), kind: "Foo".into(), name: "a".into(), blocks: false };
        let known = Object {
            uid: "u".into(),
            kind: 0,
            namespace: "n".into(),
            name: "x".into(),
            resource_version: "5".into(),
            owners: vec![a],
            deleting: false,
            foreground: false,
            orphan: false,
        };
        Writer::new(client).delete(&kind, &known, Policy::Background).await.unwrap();
        server.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn an_object_that_gets_another_owner_meanwhile_stays() {
        let left = deleted(|object| object["metadata"]["ownerReferences"] = json!([owner("a"), owner("b")])).await;
        assert_eq!(left["metadata"]["ownerReferences"], json!([owner("a"), owner("b")]));
        let left = deleted(|object| object["metadata"]["uid"] = "another".into()).await;
        assert_eq!(left["metadata"]["uid"], "another");
    }

    #[tokio::test]
    async fn an_object_that_changes_otherwise_goes_all_the_same() {
        assert_eq!(deleted(|object| object["metadata"]["labels"] = json!({ "a": "b" })).await, Value::Null);
    }
}
