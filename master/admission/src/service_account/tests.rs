use serde_json::{Value, json};

use super::*;
use crate::testing::{Cluster, admin, on};

fn admit(mut pod: Value) -> Result<Value, Refusal> {
    let (cluster, user) = (Cluster::new(), admin());
    ServiceAccount.admit(cluster.context(), &on(&user, Operation::Create, "pods", "default", ""), &mut pod)?;
    Ok(pod)
}

fn pod(spec: Value) -> Value {
    let mut pod = json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "a" }] } });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

#[test]
fn every_container_finds_the_token() {
    let pod = admit(pod(json!({ "initContainers": [{ "name": "i" }] }))).unwrap();
    assert_eq!(pod["spec"]["serviceAccountName"], "default");
    assert_eq!(pod["spec"]["serviceAccount"], "default");
    let name = text(&pod, "/spec/volumes/0/name");
    assert!(name.starts_with(VOLUME_PREFIX) && name.len() == VOLUME_PREFIX.len() + 5, "{name}");
    let mount = json!([{ "name": name, "readOnly": true, "mountPath": MOUNT_PATH }]);
    assert_eq!(pod["spec"]["containers"][0]["volumeMounts"], mount);
    assert_eq!(pod["spec"]["initContainers"][0]["volumeMounts"], mount);
    let sources = &pod["spec"]["volumes"][0]["projected"]["sources"];
    assert_eq!(sources[0]["serviceAccountToken"], json!({ "expirationSeconds": 3607, "path": "token" }));
    assert_eq!(sources[1]["configMap"]["name"], "kube-root-ca.crt");
    assert_eq!(sources[2]["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"], "metadata.namespace");
    assert_eq!(pod["spec"]["volumes"][0]["projected"]["defaultMode"], 420);
}

#[test]
fn the_pod_wish_goes_before_the_account_wish() {
    let has_volume = |spec| !admit(pod(spec)).unwrap()["spec"]["volumes"].is_null();
    assert!(!has_volume(json!({ "serviceAccountName": "quiet" })));
    assert!(has_volume(json!({ "serviceAccountName": "quiet", "automountServiceAccountToken": true })));
    assert!(!has_volume(json!({ "automountServiceAccountToken": false })));
}

#[test]
fn what_is_mounted_there_already_stays() {
    let mounts = json!([{ "name": "own", "mountPath": MOUNT_PATH }]);
    let before = pod(json!({
        "containers": [{ "name": "a", "volumeMounts": mounts }],
        "volumes": [{ "name": "own", "emptyDir": {} }],
    }));
    let after = admit(before.clone()).unwrap();
    assert_eq!(after["spec"]["volumes"], before["spec"]["volumes"]);
    assert_eq!(after["spec"]["containers"], before["spec"]["containers"]);
}

#[test]
fn pull_secrets_come_from_the_account_unless_the_pod_has_its_own() {
    let secrets = |spec| admit(pod(spec)).unwrap()["spec"]["imagePullSecrets"].clone();
    assert_eq!(secrets(json!({ "serviceAccountName": "puller" })), json!([{ "name": "registry" }]));
    let own = json!([{ "name": "own" }]);
    assert_eq!(secrets(json!({ "serviceAccountName": "puller", "imagePullSecrets": own })), own);
    assert_eq!(secrets(json!({})), Value::Null);
}

#[test]
fn an_account_must_exist() {
    let refusal = admit(pod(json!({ "serviceAccountName": "nobody" }))).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (403, "Forbidden"));
    assert_eq!(
        refusal.message,
        "pods \"p\" is forbidden: error looking up service account default/nobody: serviceaccount \"nobody\" not found"
    );
}

#[test]
fn a_mirror_pod_is_left_alone_and_names_nothing() {
    let (cluster, user) = (Cluster::new(), admin());
    let request = on(&user, Operation::Create, "pods", "default", "p");
    let mut mirror = pod(json!({}));
    mirror["metadata"]["annotations"] = json!({ pods::MIRROR_ANNOTATION: "x" });
    assert_eq!(admit(mirror.clone()).unwrap(), mirror);
    ServiceAccount.validate(cluster.context(), &request, Some(&mirror)).unwrap();
    let token = json!([{ "name": "t", "projected": { "sources": [{ "serviceAccountToken": { "path": "t" } }] } }]);
    let secret = json!([{ "name": "s", "secret": { "secretName": "s" } }]);
    for (field, value, why) in [
        ("serviceAccountName", json!("default"), "a mirror pod may not reference service accounts"),
        ("volumes", secret, "a mirror pod may not reference secrets"),
        ("volumes", token, "a mirror pod may not use ServiceAccountToken volume projections"),
    ] {
        let mut pod = mirror.clone();
        pod["spec"][field] = value;
        let refusal = ServiceAccount.validate(cluster.context(), &request, Some(&pod)).unwrap_err();
        assert_eq!(refusal.message, format!("pods \"p\" is forbidden: {why}"));
    }
}

#[test]
fn a_young_namespace_is_worth_waiting_for() {
    let (cluster, user) = (Cluster::new(), admin());
    let too_early = |namespace, account: &str| {
        let pod = pod(json!({ "serviceAccountName": account }));
        cluster.chain().is_too_early(&on(&user, Operation::Create, "pods", namespace, ""), &pod)
    };
    assert!(too_early("young", ""));
    assert!(too_early("young", "default"));
    assert!(!too_early("young", "other"));
    assert!(!too_early("default", ""));
    assert!(!too_early("nowhere", ""));
}
