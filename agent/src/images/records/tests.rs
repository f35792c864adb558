use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::*;
use crate::images::keyring::Keyring;

const IMAGE: &str = "registry.example/app:1";
const REF: &str = "sha256:abc";

/// What a secret of this name holds.
fn credentials(name: &str, password: &str) -> Vec<Credential> {
    let content = serde_json::json!({"auths": {"registry.example": {"username": "u", "password": password}}});
    let mut secret = Secret {
        type_: Some("kubernetes.io/dockerconfigjson".into()),
        data: Some([(".dockerconfigjson".to_owned(), ByteString(content.to_string().into_bytes()))].into()),
        ..Secret::default()
    };
    (secret.metadata.name, secret.metadata.uid) = (Some(name.to_owned()), Some(format!("uid-{name}")));
    let mut keyring = Keyring::default();
    keyring.add_secret(&secret).unwrap();
    keyring.lookup("registry.example/app")
}

async fn must(records: &Records, image: &str, credentials: Vec<Credential>) -> bool {
    match records.look(image, REF).await {
        Answer::Allowed => false,
        Answer::MustPull => true,
        Answer::Depends(record) => records.judge(image, &record, &credentials).await,
    }
}

fn records(folder: &Path, policy: &str) -> Records {
    Records::new(folder, Policy::new(policy, &["registry.example/*".into(), "other".into()]))
}

#[tokio::test]
async fn a_private_image_is_for_those_who_have_its_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let records = records(folder.path(), "NeverVerifyPreloadedImages");
    assert!(!must(&records, IMAGE, vec![]).await, "a preloaded image is for everybody");
    let own = credentials("a", "p");
    records.intend(IMAGE).await.unwrap();
    assert!(must(&records, IMAGE, vec![]).await, "it may just have come");
    records.succeeded(IMAGE, REF, own.first()).await;
    assert!(!records.pulling.join("x").exists() && list::<Intent>(&records.pulling).await.is_empty());

    assert!(must(&records, IMAGE, vec![]).await);
    assert!(must(&records, IMAGE, credentials("b", "wrong")).await);
    assert!(!must(&records, IMAGE, own.clone()).await);
    // The same credentials in another secret, then that secret with other ones: both are trusted, and known from then on.
    assert!(!must(&records, IMAGE, credentials("b", "p")).await);
    assert!(!must(&records, IMAGE, credentials("b", "rotated")).await);
    assert!(!must(&records, IMAGE, credentials("c", "rotated")).await);
    // Another name of the same image was not asked for yet.
    assert!(must(&records, "mirror.example/app:1", own).await);
    records.succeeded("mirror.example/app:1", REF, None).await;
    assert!(!must(&records, "mirror.example/app:2", vec![]).await);
}

#[tokio::test]
async fn policies() {
    let folder = tempfile::tempdir().unwrap();
    for (policy, preloaded) in [
        ("NeverVerify", false),
        ("NeverVerifyPreloadedImages", false),
        ("NeverVerifyAllowlistedImages", false),
        ("AlwaysVerify", true),
    ] {
        assert_eq!(must(&records(folder.path(), policy), IMAGE, vec![]).await, preloaded, "{policy}");
    }
    let allowing = records(folder.path(), "NeverVerifyAllowlistedImages");
    assert!(!must(&allowing, "other:5", vec![]).await);
    assert!(must(&allowing, "others:5", vec![]).await);
}

#[tokio::test]
async fn pulls_without_an_end_are_recovered_and_old_records_pruned() {
    let folder = tempfile::tempdir().unwrap();
    let before = records(folder.path(), "NeverVerifyPreloadedImages");
    before.intend(IMAGE).await.unwrap();
    before.intend("gone:1").await.unwrap();
    let after = records(folder.path(), "NeverVerifyPreloadedImages");
    let image = cri::v1::Image { id: REF.into(), repo_tags: vec![IMAGE.into()], ..Default::default() };
    after.recover(&[image]).await;
    assert!(list::<Intent>(&after.pulling).await.is_empty());
    assert!(must(&after, IMAGE, vec![]).await, "nobody is known to may use it");
    after.prune(&[REF.into()], Timestamp::now()).await;
    assert_eq!(list::<Pulled>(&after.pulled).await.len(), 1);
    after.prune(&[], Timestamp::UNIX_EPOCH).await;
    assert_eq!(list::<Pulled>(&after.pulled).await.len(), 1, "it is newer");
    after.prune(&[], Timestamp::MAX).await;
    assert!(list::<Pulled>(&after.pulled).await.is_empty());
}

#[tokio::test]
async fn files_are_a_kubelets() {
    let folder = tempfile::tempdir().unwrap();
    let records = records(folder.path(), "AlwaysVerify");
    records.intend("app:1").await.unwrap();
    records.succeeded("app:1", REF, None).await;
    let name = format!("sha256-{}", encode_string(&Sha256::digest(REF)));
    let text = std::fs::read_to_string(folder.path().join("image_manager/pulled").join(name)).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&value["kind"], &value["apiVersion"]), (&"ImagePulledRecord".into(), &API_VERSION.into()));
    assert_eq!(value["credentialMapping"]["app"], serde_json::json!({"nodePodsAccessible": true}));
}

#[test]
fn patterns_of_the_allowlist_are_checked() {
    for good in ["registry.example/*", "app", "registry.example/team/app"] {
        assert_eq!(check_pattern(good), None, "{good}");
    }
    for bad in ["", " app", "a*b", "app:1", "/*", "App"] {
        assert!(check_pattern(bad).is_some(), "{bad}");
    }
}
