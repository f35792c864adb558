//! The puller over a runtime in memory: which events and reasons a pod sees, and which credentials are tried.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret};
use tokio::sync::mpsc;
use volumes::{BoundToken, ObjectError, TokenAsk};

use super::*;
use crate::events::{Observation, Recorder};

/// Secrets by name.
#[derive(Default)]
struct Secrets(BTreeMap<String, Secret>);

impl Secrets {
    fn of(passwords: &[(&str, &str)]) -> Self {
        let secret = |name: &str, password: &str| {
            let auths = serde_json::json!({"auths": {"registry.example": {"username": "u", "password": password}}});
            let mut secret = Secret {
                type_: Some("kubernetes.io/dockerconfigjson".into()),
                data: Some([(".dockerconfigjson".to_owned(), ByteString(auths.to_string().into_bytes()))].into()),
                ..Secret::default()
            };
            secret.metadata.name = Some(name.to_owned());
            secret
        };
        Self(passwords.iter().map(|(name, password)| ((*name).to_owned(), secret(name, password))).collect())
    }
}

impl Objects for Secrets {
    async fn config_map(&self, _: &str, name: &str) -> Result<ConfigMap, ObjectError> {
        Err(ObjectError::NotFound { kind: "configmap", name: name.to_owned() })
    }

    async fn secret(&self, _: &str, name: &str) -> Result<Secret, ObjectError> {
        let missing = || ObjectError::NotFound { kind: "secret", name: name.to_owned() };
        self.0.get(name).cloned().ok_or_else(missing)
    }

    async fn claim(&self, _: &str, name: &str) -> Result<PersistentVolumeClaim, ObjectError> {
        Err(ObjectError::NotFound { kind: "persistentvolumeclaim", name: name.to_owned() })
    }

    async fn volume(&self, name: &str) -> Result<PersistentVolume, ObjectError> {
        Err(ObjectError::NotFound { kind: "persistentvolume", name: name.to_owned() })
    }

    async fn token(&self, _: &TokenAsk) -> Result<BoundToken, ObjectError> {
        Err(ObjectError::Other("no tokens".to_owned()))
    }
}

struct Node {
    fake: cri::fake::Fake,
    puller: Puller,
    recorder: Recorder,
    events: mpsc::Receiver<Observation>,
    secrets: Secrets,
    _folder: tempfile::TempDir,
}

impl Node {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(&KubeletConfiguration::default(), folder.path().to_owned());
        change(&mut settings);
        let fake = cri::fake::Fake::default();
        let mut puller = Puller::new(fake.client(), &settings);
        // The machine that tests run on may have credentials of its own.
        puller.folders = Vec::new();
        let (recorder, events) = Recorder::channel();
        let secrets = Secrets::of(&[("good", "right"), ("bad", "wrong")]);
        Self { fake, puller, recorder, events, secrets, _folder: folder }
    }

    async fn ensure(&self, image: &str, policy: &str, secrets: &[&str]) -> Result<Image, StageError> {
        self.ensure_until(&CancellationToken::new(), image, policy, secrets).await
    }

    async fn ensure_until(
        &self,
        over: &CancellationToken,
        image: &str,
        policy: &str,
        secrets: &[&str],
    ) -> Result<Image, StageError> {
        let names: Vec<_> = secrets.iter().map(|name| serde_json::json!({ "name": name })).collect();
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "ns", "name": "p"},
            "spec": {"imagePullSecrets": names, "containers": [{"name": "c", "image": image, "imagePullPolicy": policy}]},
        }))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let say = Say::new(&self.recorder, Some(&pod));
        let ask = Ask { pod: &pod, container, role: Role::App, say: &say, objects: &self.secrets, over };
        self.puller.ensure(ask).await
    }

    /// Reasons and messages of what was said since.
    fn said(&mut self) -> Vec<(String, String)> {
        std::iter::from_fn(|| self.events.try_recv().ok()).map(|event| (event.reason, event.message)).collect()
    }

    fn reasons(&mut self) -> Vec<String> {
        self.said().into_iter().map(|(reason, _)| reason).collect()
    }

    fn pulls(&self) -> usize {
        self.fake.count("PullImage")
    }
}

#[tokio::test]
async fn policies_say_when_to_pull() {
    let mut node = Node::new(|_| ());
    let error = node.ensure("app:1", "Never", &[]).await.unwrap_err();
    assert_eq!(error.reason, "ErrImageNeverPull");
    assert_eq!(error.message, "Container image \"app:1\" is not present with pull policy of Never");
    assert_eq!(node.reasons(), ["ErrImageNeverPull"]);

    node.ensure("app:1", "IfNotPresent", &[]).await.unwrap();
    assert_eq!(node.reasons(), ["Pulling", "Pulled"]);
    node.ensure("app:1", "IfNotPresent", &[]).await.unwrap();
    node.ensure("app:1", "Never", &[]).await.unwrap();
    let (reason, message) = node.said().pop().unwrap();
    assert_eq!(reason, "Pulled");
    assert_eq!(message, "Container image \"app:1\" already present on machine and can be accessed by the pod");
    assert_eq!(node.pulls(), 1);
    node.ensure("app:1", "Always", &[]).await.unwrap();
    assert_eq!(node.pulls(), 2);
}

#[tokio::test]
async fn failures_are_worded_as_upstream_words_them() {
    let mut node = Node::new(|_| ());
    let error = node.ensure("missing:1", "IfNotPresent", &[]).await.unwrap_err();
    let text = "rpc error: code = NotFound desc = failed to pull and unpack image \
                \"docker.io/library/missing:1\": not found";
    assert_eq!((error.reason.as_str(), error.message.as_str()), ("ErrImagePull", text));
    assert_eq!(node.said()[1], ("Failed".to_owned(), format!("Failed to pull image \"missing:1\": {text}")));
    let error = node.ensure("Not An Image", "Always", &[]).await.unwrap_err();
    assert_eq!(error.reason, "InvalidImageName");
    assert_eq!(node.reasons(), ["InspectFailed"]);
    let error = classify("a", "RegistryUnavailable: try later");
    assert_eq!(error.reason, "RegistryUnavailable");
    assert_eq!(error.message, "image pull failed for a because the registry is unavailable: try later");
}

#[tokio::test]
async fn secrets_are_tried_in_turn_and_remembered() {
    let mut node = Node::new(|_| ());
    let image = "registry.example/private:1";
    let error = node.ensure(image, "IfNotPresent", &[]).await.unwrap_err();
    assert!(error.message.ends_with("authorization failed") && !error.message.contains("rpc error"), "{error:?}");
    node.said();
    let error = node.ensure(image, "IfNotPresent", &["bad", "gone"]).await.unwrap_err();
    assert!(error.message.ends_with("authorization failed"));
    let warning = "Unable to retrieve some image pull secrets (gone); attempting to pull the image may not succeed.";
    assert_eq!(node.said()[0], ("FailedToRetrieveImagePullSecret".to_owned(), warning.to_owned()));

    node.ensure(image, "IfNotPresent", &["bad", "good"]).await.unwrap();
    let pulls = node.pulls();
    node.said();
    node.ensure(image, "Never", &["good"]).await.unwrap();
    assert_eq!((node.pulls(), node.reasons()), (pulls, vec!["Pulled".to_owned()]));
    // Another pod does not get to know that the image is there.
    let error = node.ensure(image, "Never", &[]).await.unwrap_err();
    assert_eq!(error.reason, "ErrImageNeverPull");
    assert!(node.ensure(image, "IfNotPresent", &["bad"]).await.is_err());
    assert_eq!(node.pulls(), pulls + 1);
}

#[tokio::test]
async fn pulls_beyond_the_rate_are_turned_away() {
    let node = Node::new(|settings| settings.rate = (1, 1));
    node.ensure("a:1", "Always", &[]).await.unwrap();
    let error = node.ensure("b:1", "Always", &[]).await.unwrap_err();
    assert_eq!((error.reason.as_str(), error.message.as_str()), ("ErrImagePull", "pull QPS exceeded"));
}

#[tokio::test]
async fn a_pull_that_nobody_needs_any_more_gives_its_place_back() {
    let mut node = Node::new(|settings| settings.parallel = Some(1));
    let (over, reached) = (CancellationToken::new(), node.fake.hang(0, false));
    let pull = node.ensure_until(&over, "slow:1", "Always", &[]);
    let (pulled, ()) = tokio::join!(pull, async {
        reached.await;
        over.cancel();
    });
    assert_eq!(pulled.unwrap_err().message, "pull of image \"slow:1\" given up: the pod ended");
    assert_eq!(node.reasons(), ["Pulling"]);
    node.ensure("app:1", "Always", &[]).await.unwrap();
}
