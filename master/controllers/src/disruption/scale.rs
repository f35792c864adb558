//! How many pods the controllers of some pods want together (`getExpectedScale`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::DynamicObject;
use kube::{Api, Client, ResourceExt};

use crate::context::Caches;
use crate::discovery::{self, Resources};
use crate::owner::controller_of;

/// What is expected of all of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) pods: i32,
    /// Whether some have no controller: they do not count.
    pub(super) has_unmanaged: bool,
}

/// A controller, by its UID, and how many pods it wants.
type Wanted = (String, i32);

/// Asks the controllers.
pub(super) struct Scales {
    pub(super) client: Client,
    pub(super) caches: Caches,
    pub(super) resources: Resources,
}

impl Scales {
    /// What is expected of these pods; otherwise why that is not known, in upstream's words.
    pub(super) async fn of(&self, namespace: &str, pods: &[Arc<Pod>]) -> Result<Expected, String> {
        let mut expected = Expected::default();
        let mut asked: BTreeSet<&str> = BTreeSet::new();
        let mut wanted: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else {
                expected.has_unmanaged = true;
                continue;
            };
            if !asked.insert(&owner.uid) {
                continue;
            }
            let found = match known(&self.caches, namespace, owner) {
                Some(found) => Some(found),
                None => self.scaled(namespace, owner).await?,
            };
            wanted.extend([found.ok_or_else(|| format!("found no controllers for pod {:?}", pod.name_any()))?]);
        }
        expected.pods = wanted.values().sum();
        Ok(expected)
    }

    /// Of kinds that are not followed here the scale is asked for (`getScaleController`); none of one that is gone.
    async fn scaled(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<Wanted>, String> {
        let said = |error: kube::Error| crate::pod_control::answer(&error);
        let group = discovery::group_of(&owner.api_version);
        let resource = self.resources.find(group, &owner.kind).await.map_err(said)?;
        let no_match = || format!("no matches for kind {:?} in version {:?}", owner.kind, owner.api_version);
        let resource = resource.ok_or_else(no_match)?;
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource);
        match api.get_scale(&owner.name).await {
            Ok(scale) => {
                let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
                Ok(is(&scale.metadata, owner).then(|| (owner.uid.clone(), replicas)))
            }
            Err(error) if machinery::is_not_found(&error) => {
                self.resources.forget(group, &owner.kind);
                if self.resources.has_scale(&resource).await.map_err(said)? {
                    return Ok(None);
                }
                let dot = if group.is_empty() { "" } else { "." };
                Err(format!("{}{dot}{group} does not implement the scale subresource", resource.plural))
            }
            Err(error) => Err(said(error)),
        }
    }
}

/// Whether this is the very object that is referred to.
fn is(meta: &ObjectMeta, owner: &OwnerReference) -> bool {
    meta.uid.as_deref() == Some(owner.uid.as_str())
}

/// What the top controller of a pod asks for, if it is of a kind that is followed: a Deployment speaks for its ReplicaSets.
fn known(caches: &Caches, namespace: &str, owner: &OwnerReference) -> Option<Wanted> {
    let key = format!("{namespace}/{}", owner.name);
    let of =
        |meta: &ObjectMeta, replicas: Option<i32>| is(meta, owner).then(|| (owner.uid.clone(), replicas.unwrap_or(1)));
    match (owner.kind.as_str(), discovery::group_of(&owner.api_version)) {
        ("ReplicaSet", "apps" | "extensions") => {
            let set = caches.replica_sets.get(&key).filter(|set| is(&set.metadata, owner))?;
            match controller_of(&set.metadata).filter(|above| above.kind == "Deployment") {
                Some(above) => known(caches, namespace, above),
                None => of(&set.metadata, set.spec.as_ref()?.replicas),
            }
        }
        ("Deployment", "apps" | "extensions") => {
            let deployment = caches.deployments.get(&key)?;
            of(&deployment.metadata, deployment.spec.as_ref()?.replicas)
        }
        ("StatefulSet", "apps") => {
            let set = caches.stateful_sets.get(&key)?;
            of(&set.metadata, set.spec.as_ref()?.replicas)
        }
        ("ReplicationController", "") => {
            let controller = caches.replication_controllers.get(&key)?;
            of(&controller.metadata, controller.spec.as_ref()?.replicas)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fake_api::FakeApi;

    fn owner(api_version: &str, kind: &str, name: &str) -> OwnerReference {
        let reference =
            json!({ "apiVersion": api_version, "kind": kind, "name": name, "uid": name, "controller": true });
        serde_json::from_value(reference).unwrap()
    }

    fn caches() -> Caches {
        let caches = Caches::default();
        let set = |name: &str, replicas: i32, owners: Value| {
            let metadata = json!({ "namespace": "n", "name": name, "uid": name, "ownerReferences": owners });
            json!({ "metadata": metadata, "spec": { "replicas": replicas, "selector": {} } })
        };
        let deployed = json!([owner("apps/v1", "Deployment", "d")]);
        let rolled_out = json!([owner("example.com/v1", "Rollout", "r")]);
        let mut deployment = set("d", 7, Value::Null);
        deployment["spec"]["template"] = json!({});
        caches.deployments.apply(serde_json::from_value(deployment).unwrap());
        for (name, owners) in [("of-d", deployed), ("of-r", rolled_out), ("own", Value::Null)] {
            caches.replica_sets.apply(serde_json::from_value(set(name, 3, owners)).unwrap());
        }
        caches
    }

    /// Two pods of one owner.
    fn pods_of(owner: &OwnerReference) -> [Arc<Pod>; 2] {
        ["x", "y"].map(|name| {
            let metadata = json!({ "namespace": "n", "name": name, "ownerReferences": [owner] });
            Arc::new(serde_json::from_value(json!({ "metadata": metadata })).unwrap())
        })
    }

    #[tokio::test]
    async fn owners_of_other_kinds_are_asked_for_their_scale() {
        let version = json!({ "groupVersion": "example.com/v1", "version": "v1" });
        let groups =
            json!({ "groups": [{ "name": "example.com", "versions": [version], "preferredVersion": version }] });
        let resource = |name: &str, kind: &str| {
            let verbs = if name.contains('/') { json!(["get"]) } else { json!(["get", "list"]) };
            json!({ "name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": verbs })
        };
        let resources = [("rollouts", "Rollout"), ("rollouts/scale", "Scale"), ("plains", "Plain")];
        let resources = json!({ "groupVersion": "example.com/v1", "resources": resources.map(|(name, kind)| resource(name, kind)) });
        let scale = json!({ "metadata": { "name": "r", "uid": "r" }, "spec": { "replicas": 5 } });
        let api = FakeApi::with(
            "1",
            [
                ("/apis", groups),
                ("/apis/example.com/v1", resources),
                ("/apis/example.com/v1/namespaces/n/rollouts/r/scale", scale),
            ],
        );
        let client = api.client();
        let scales = Scales { client: client.clone(), caches: caches(), resources: Resources::new(client) };
        let of = async |api_version: &str, kind: &str, name: &str| {
            scales.of("n", &pods_of(&owner(api_version, kind, name))).await
        };
        assert_eq!(of("example.com/v1", "Rollout", "r").await, Ok(Expected { pods: 5, has_unmanaged: false }));
        assert_eq!(of("example.com/v1", "Rollout", "gone").await, Err("found no controllers for pod \"x\"".into()));
        let plain = of("example.com/v1", "Plain", "p").await;
        assert_eq!(plain, Err("plains.example.com does not implement the scale subresource".into()));
        let none = of("example.com/v1", "Other", "o").await;
        assert_eq!(none, Err("no matches for kind \"Other\" in version \"example.com/v1\"".into()));
        assert_eq!(of("apps/v1", "ReplicaSet", "of-d").await, Ok(Expected { pods: 7, has_unmanaged: false }));
        let free = Arc::new(Pod::default());
        assert_eq!(scales.of("n", &[free]).await, Ok(Expected { pods: 0, has_unmanaged: true }));
    }

    #[test]
    fn a_deployment_speaks_for_its_sets_and_others_for_themselves() {
        let caches = caches();
        let ask = |owner: &OwnerReference| known(&caches, "n", owner);
        let found = |uid: &str, replicas: i32| Some((uid.to_owned(), replicas));
        assert_eq!(ask(&owner("apps/v1", "ReplicaSet", "of-d")), found("d", 7));
        assert_eq!(ask(&owner("apps/v1", "ReplicaSet", "of-r")), found("of-r", 3));
        assert_eq!(ask(&owner("apps/v1", "ReplicaSet", "own")), found("own", 3));
        assert_eq!(ask(&owner("example.com/v1", "ReplicaSet", "own")), None, "another kind of that name");
        assert_eq!(ask(&owner("apps/v1", "ReplicaSet", "gone")), None);
        let namesake = OwnerReference { uid: "earlier".into(), ..owner("apps/v1", "ReplicaSet", "own") };
        assert_eq!(ask(&namesake), None);
    }
}
