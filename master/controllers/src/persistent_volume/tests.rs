use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use machinery::{Recorder, WorkQueue};
use serde_json::{Value, json};

use super::plan::{self, ClaimStep, Facts, VolumeStep};
use super::{Caches, Controller};
use crate::fake_api::FakeApi;

fn claim(spec: Value, annotations: Value) -> PersistentVolumeClaim {
    let mut claim = json!({
        "metadata": {"name": "c", "namespace": "ns", "uid": "u", "annotations": annotations},
        "spec": {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"]},
        "status": {"phase": "Pending"}
    });
    for (field, value) in spec.as_object().unwrap() {
        claim["spec"][field] = value.clone();
    }
    serde_json::from_value(claim).unwrap()
}

fn volume(name: &str, spec: Value) -> PersistentVolume {
    let mut volume = json!({
        "metadata": {"name": name}, "status": {"phase": "Available"},
        "spec": {"capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"]}
    });
    for (field, value) in spec.as_object().unwrap() {
        volume["spec"][field] = value.clone();
    }
    serde_json::from_value(volume).unwrap()
}

/// The steps in words.
fn told(claim: &PersistentVolumeClaim, volumes: &[PersistentVolume], class: Option<&StorageClass>) -> String {
    let volumes: Vec<_> = volumes.iter().collect();
    let facts = Facts { volumes: &volumes, class, waiting: &[] };
    let word = |step: ClaimStep<'_>| match step {
        ClaimStep::Bind(volume) => format!("bind {}", volume.metadata.name.as_deref().unwrap()),
        ClaimStep::Phase(phase) => phase.to_owned(),
        ClaimStep::Provisioner(provisioner) => format!("provisioner {provisioner}"),
        ClaimStep::Say(_, reason, text) => format!("{reason}: {text}"),
    };
    plan::claim(claim, &facts).into_iter().map(word).collect::<Vec<_>>().join("; ")
}

#[test]
fn a_claim_gets_what_fits_or_is_told_why_not() {
    let plain = claim(json!({}), json!({}));
    assert_eq!(told(&plain, &[volume("v", json!({}))], None), "bind v");
    let text = "Pending; FailedBinding: no persistent volumes available for this claim and no storage class is set";
    assert_eq!(told(&plain, &[], None), text);
    let classed = claim(json!({"storageClassName": "s"}), json!({}));
    let text = "Pending; ProvisioningFailed: storageclass.storage.k8s.io \"s\" not found";
    assert_eq!(told(&classed, &[volume("v", json!({}))], None), text);
    let class = |mode: &str| -> StorageClass {
        serde_json::from_value(json!({"provisioner": "example.com/p", "volumeBindingMode": mode})).unwrap()
    };
    let steps = told(&classed, &[], Some(&class("Immediate")));
    assert!(steps.starts_with("Pending; provisioner example.com/p; ExternalProvisioning: Waiting for"), "{steps}");
    let fits = volume("v", json!({"storageClassName": "s"}));
    let text = "Pending; WaitForFirstConsumer: waiting for first consumer to be created before binding";
    assert_eq!(told(&classed, std::slice::from_ref(&fits), Some(&class("WaitForFirstConsumer"))), text);
    assert_eq!(told(&classed, &[fits], Some(&class("Immediate"))), "bind v");
    // With the node chosen, and once told.
    let selected = claim(json!({"storageClassName": "s"}), json!({"volume.kubernetes.io/selected-node": "n"}));
    let steps = told(&selected, &[], Some(&class("WaitForFirstConsumer")));
    assert!(steps.starts_with("Pending; provisioner example.com/p; ExternalProvisioning: "), "{steps}");
    let known = plan::with_provisioner(&selected, "example.com/p");
    let steps = told(&known, &[], Some(&class("WaitForFirstConsumer")));
    assert!(steps.starts_with("Pending; ExternalProvisioning: "), "{steps}");
}

fn controller(api: &FakeApi, caches: Caches) -> Controller {
    let (recorder, _events) = Recorder::new(api.client(), "test");
    Controller { client: api.client(), caches, recorder, queue: WorkQueue::new() }
}

#[tokio::test]
async fn an_external_provisioner_is_told_of_a_new_claim() {
    let (api, caches) = (FakeApi::new("1"), Caches::default());
    let mut new = claim(json!({"storageClassName": "s"}), json!({"mine": "kept"}));
    (new.metadata.resource_version, new.status) = (Some("1".into()), None);
    caches.claims.apply(new);
    let class = json!({"metadata": {"name": "s"}, "provisioner": "example.com/p"});
    caches.storage_classes.apply(serde_json::from_value(class).unwrap());
    controller(&api, caches).claim("ns/c").await.unwrap();
    let path = "PUT /api/v1/namespaces/ns/persistentvolumeclaims/c";
    assert_eq!(api.taken(), [format!("{path}/status"), path.to_owned()]);
    let annotations = json!({
        "mine": "kept", "volume.kubernetes.io/storage-provisioner": "example.com/p",
        "volume.beta.kubernetes.io/storage-provisioner": "example.com/p",
    });
    assert_eq!(api.body(path)["metadata"]["annotations"], annotations);
}

#[test]
fn a_claim_that_names_its_volume() {
    let named = claim(json!({"volumeName": "v"}), json!({}));
    assert_eq!(told(&named, &[], None), "Pending");
    assert_eq!(told(&named, &[volume("v", json!({}))], None), "bind v");
    let small = volume("v", json!({"capacity": {"storage": "1Mi"}}));
    let text = "Pending; VolumeMismatch: Cannot bind to requested volume \"v\": requested PV is too small";
    assert_eq!(told(&named, &[small], None), text);
    let taken = volume("v", json!({"claimRef": {"name": "d", "namespace": "ns", "uid": "w"}}));
    let text = "Pending; FailedBinding: volume \"v\" already bound to a different claim.";
    assert_eq!(told(&named, &[taken], None), text);
}

#[test]
fn what_was_bound_is_kept_or_lost() {
    let bound = claim(json!({"volumeName": "v"}), json!({"pv.kubernetes.io/bind-completed": "yes"}));
    let own = json!({"claimRef": {"name": "c", "namespace": "ns", "uid": "u"}});
    assert_eq!(told(&bound, &[volume("v", own)], None), "bind v");
    let text = "Lost; ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!";
    assert_eq!(told(&bound, &[], None), text);
    let other = json!({"claimRef": {"name": "c", "namespace": "ns", "uid": "older"}});
    assert!(told(&bound, &[volume("v", other)], None).starts_with("Lost; ClaimMisbound: "));
}

#[test]
fn both_sides_name_each_other() {
    let (mine, free) = (claim(json!({}), json!({})), volume("v", json!({})));
    let bound_volume = plan::bound_volume(&free, &mine).unwrap();
    let owner = bound_volume.spec.as_ref().unwrap().claim_ref.as_ref().unwrap();
    assert_eq!((owner.kind.as_deref(), owner.uid.as_deref()), (Some("PersistentVolumeClaim"), Some("u")));
    assert_eq!(bound_volume.metadata.annotations.as_ref().unwrap()["pv.kubernetes.io/bound-by-controller"], "yes");
    assert_eq!(plan::bound_volume(&bound_volume, &mine), None);
    let bound_claim = plan::bound_claim(&mine, &bound_volume).unwrap();
    assert_eq!(bound_claim.spec.as_ref().unwrap().volume_name.as_deref(), Some("v"));
    assert_eq!(bound_claim.metadata.annotations.as_ref().unwrap().len(), 2);
    assert_eq!(plan::bound_claim(&bound_claim, &bound_volume), None);
    // What a person had kept for the claim stays so.
    let kept = volume("v", json!({"claimRef": {"name": "c", "namespace": "ns"}}));
    let bound_kept = plan::bound_volume(&kept, &mine).unwrap();
    assert_eq!(bound_kept.metadata.annotations, None);
    let left = plan::unbound_volume(&bound_kept).spec.unwrap().claim_ref.unwrap();
    assert_eq!((left.name.as_deref(), left.uid), (Some("c"), None));
    assert_eq!(plan::unbound_volume(&bound_volume).spec.unwrap().claim_ref, None);
}

#[test]
fn phases_of_volumes() {
    let of = |spec: Value| json!({"claimRef": spec});
    let own = volume("v", of(json!({"name": "c", "namespace": "ns", "uid": "u"})));
    let has = |name: &str| claim(json!({"volumeName": name}), json!({}));
    assert_eq!(plan::volume(&volume("v", json!({})), None), [VolumeStep::Phase("Available")]);
    let kept = volume("v", of(json!({"name": "c", "namespace": "ns"})));
    assert_eq!(plan::volume(&kept, None), [VolumeStep::Phase("Available"), VolumeStep::AskClaim]);
    assert_eq!(plan::volume(&own, Some(&has("v"))), [VolumeStep::Phase("Bound")]);
    assert_eq!(plan::volume(&own, Some(&has("w"))), [VolumeStep::Unbind]);
    assert_eq!(plan::volume(&own, Some(&has(""))), [VolumeStep::AskClaim]);
    assert_eq!(plan::volume(&own, None), [VolumeStep::Phase("Released"), VolumeStep::Reclaim]);
    let mut failed = own;
    failed.status.as_mut().unwrap().phase = Some("Failed".to_owned());
    assert_eq!(plan::volume(&failed, None), [VolumeStep::Reclaim]);
}

#[tokio::test]
async fn a_volume_of_another_driver_is_left_to_it() {
    let table = [
        (json!({}), json!({"nfs": {"server": "s", "path": "/p"}}), false),
        (json!({}), json!({"csi": {"driver": "d", "volumeHandle": "h"}}), true),
        (
            json!({"pv.kubernetes.io/provisioned-by": "example.com/nfs"}),
            json!({"nfs": {"server": "s", "path": "/p"}}),
            true,
        ),
        (
            json!({"pv.kubernetes.io/provisioned-by": "kubernetes.io/x"}),
            json!({"nfs": {"server": "s", "path": "/p"}}),
            false,
        ),
        (json!({"pv.kubernetes.io/migrated-to": "example.com/d"}), json!({"nfs": {"server": "s", "path": "/p"}}), true),
    ];
    for (annotations, source, is_left) in table {
        let api = FakeApi::new("1");
        let mut released = volume("v", source.clone());
        released.metadata.annotations = serde_json::from_value(annotations.clone()).unwrap();
        released.spec.as_mut().unwrap().persistent_volume_reclaim_policy = Some("Delete".into());
        controller(&api, Caches::default()).reclaim(&released).await.unwrap();
        assert_eq!(api.taken().is_empty(), is_left, "{annotations} {source}: {:?}", api.taken());
    }
}
