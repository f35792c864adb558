//! Images of containers: policies, pulls with the pod's credentials, the events about them, and their removal
//! (pkg/kubelet/images).
//!
//! * [`keyring`]: credentials of pods and of the node, and which fit an image.
//! * [`records`]: who may use an image that is there.
//! * [`gc`]: which images go when room is needed.

pub mod gc;
pub mod keyring;
pub mod records;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cri::v1::{ImageSpec, ImageStatusRequest, PullImageRequest};
use k8s_openapi::api::core::v1::{Container, Pod};
use pod::{Event, Role};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use volumes::Objects;

use crate::client::watch::describe;
use crate::config::KubeletConfiguration;
use crate::metrics::Pulls;
use crate::pods::stages::security::ImageUser;
use crate::pods::stages::{Say, StageError, request};
use crate::rate::TokenBucket;
use keyring::{Credential, Keyring};
use records::{Answer, Policy, Records};

/// An image that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What containers are made from.
    pub reference: String,
    pub user: ImageUser,
}

/// How images are got.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Pulls at a time; `None` for no limit.
    pub parallel: Option<usize>,
    /// `registryPullQPS` (0 for no limit) and `registryBurst`.
    pub rate: (i32, i32),
    /// `imagePullCredentialsVerificationPolicy`
    pub policy: Policy,
    /// Thresholds and ages of image garbage collection.
    pub collection: gc::Policy,
    /// The agent's folder.
    pub data_dir: PathBuf,
}

impl Settings {
    /// From the agent's configuration.
    #[must_use]
    pub fn new(kubelet: &KubeletConfiguration, data_dir: PathBuf) -> Self {
        let parallel = kubelet.max_parallel_image_pulls.and_then(|max| usize::try_from(max).ok());
        let percent = |value: i32| u8::try_from(value).unwrap_or(100);
        Self {
            parallel: if kubelet.serialize_image_pulls.unwrap_or(true) { Some(1) } else { parallel },
            rate: (kubelet.registry_pull_qps, kubelet.registry_burst),
            policy: Policy::new(
                &kubelet.image_pull_credentials_verification_policy,
                &kubelet.preloaded_images_verification_allowlist,
            ),
            collection: gc::Policy {
                high: percent(kubelet.image_gc_high_threshold_percent),
                low: percent(kubelet.image_gc_low_threshold_percent),
                min_age: kubelet.image_minimum_gc_age.0,
                max_age: kubelet.image_maximum_gc_age.0,
            },
            data_dir,
        }
    }
}

/// Gets images. Waits for a slot before it pulls; images that are there need none.
pub struct Puller {
    runtime: cri::Client,
    slots: Option<Arc<Semaphore>>,
    rate: Mutex<TokenBucket>,
    records: Arc<Records>,
    /// Where the node's own credentials are looked for.
    folders: Vec<PathBuf>,
}

/// Who asks for an image.
#[derive(Clone, Copy)]
pub struct Ask<'a, O> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub role: Role,
    pub say: &'a Say<'a>,
    /// Where image pull secrets are read.
    pub objects: &'a O,
    /// Cancelled when the pod does not need it any more.
    pub over: &'a CancellationToken,
}

impl<O> Ask<'_, O> {
    fn tell(&self, event: Event) {
        self.say.event(event.of_container(self.role, &self.container.name));
    }

    /// The image as the pod names it.
    fn named(&self) -> &str {
        self.container.image.as_deref().unwrap_or_default()
    }

    fn inspect_failed(&self, reason: &str, text: String) -> StageError {
        self.tell(Event::warning("InspectFailed", &text));
        StageError::new(reason, text)
    }

    /// It is not there, or not for this pod; which of the two is not told.
    fn never(&self) -> StageError {
        let text = format!("Container image {:?} is not present with pull policy of Never", self.named());
        self.tell(Event::warning("ErrImageNeverPull", &text));
        StageError::new("ErrImageNeverPull", text)
    }
}

impl Puller {
    /// Nothing is pulled yet.
    #[must_use]
    pub fn new(runtime: cri::Client, settings: &Settings) -> Self {
        Self {
            runtime,
            slots: settings.parallel.map(|slots| Arc::new(Semaphore::new(slots.max(1)))),
            rate: Mutex::new(TokenBucket::per_second(settings.rate.0, settings.rate.1)),
            records: Arc::new(Records::new(&settings.data_dir, settings.policy.clone())),
            folders: keyring::node_folders(&settings.data_dir),
        }
    }

    /// What is known of earlier pulls.
    #[must_use]
    pub fn records(&self) -> Arc<Records> {
        Arc::clone(&self.records)
    }

    /// The image of a container, pulled where its policy says so, or where the pod must show that it may use it.
    ///
    /// # Errors
    /// `InvalidImageName`, `ErrImageNeverPull`, `ImageInspectError`, `ErrImagePull`, `RegistryUnavailable`,
    /// `SignatureValidationFailed`.
    pub async fn ensure<O: Objects>(&self, ask: Ask<'_, O>) -> Result<Image, StageError> {
        let named = ask.named();
        let name = api::image::normalise(named).map_err(|error| {
            let text = format!("Failed to apply default image tag {named:?}: {error}");
            ask.inspect_failed("InvalidImageName", text)
        })?;
        let policy = ask.container.image_pull_policy.as_deref().filter(|policy| !policy.is_empty());
        let policy = policy.unwrap_or_else(|| api::image::default_pull_policy(named));
        let mut credentials = None;
        if policy != "Always" {
            match self.present(&ask, &name).await? {
                Some(image) if self.may_use(&ask, &name, &image, &mut credentials).await? => {
                    let text =
                        format!("Container image {named:?} already present on machine and can be accessed by the pod");
                    ask.tell(Event::normal("Pulled", &text));
                    return Ok(image);
                }
                _ if policy == "Never" => return Err(ask.never()),
                _ => {}
            }
        }
        let credentials = match credentials {
            Some(known) => known,
            None => self.credentials(&ask, &name).await?,
        };
        let intended = self.records.intend(named).await;
        intended.map_err(|error| {
            let text = format!("Failed to record image pull intent for container image {named:?}: {error}");
            StageError::new("ErrImagePull", text)
        })?;
        match self.pull(&ask, &name, &credentials).await {
            Ok((image, used)) => {
                self.records.succeeded(named, &image.reference, used).await;
                Ok(image)
            }
            Err(error) => {
                self.records.failed(named).await;
                Err(error)
            }
        }
    }

    async fn present<O>(&self, ask: &Ask<'_, O>, name: &str) -> Result<Option<Image>, StageError> {
        let found = self.inspect(name).await.map_err(|error| {
            let text = format!("Failed to inspect image {name:?}: {}", error.rpc_text());
            ask.inspect_failed("ImageInspectError", text)
        });
        Ok(found?.map(|(image, _)| image))
    }

    /// Whether the pod may use an image that is there. Its credentials are read only when they count.
    async fn may_use<O: Objects>(
        &self,
        ask: &Ask<'_, O>,
        name: &str,
        image: &Image,
        credentials: &mut Option<Vec<Credential>>,
    ) -> Result<bool, StageError> {
        let record = match self.records.look(ask.named(), &image.reference).await {
            Answer::Allowed => return Ok(true),
            Answer::MustPull => return Ok(false),
            Answer::Depends(record) => record,
        };
        let own = self.credentials(ask, name).await?;
        let must_pull = self.records.judge(ask.named(), &record, &own).await;
        *credentials = Some(own);
        Ok(!must_pull)
    }

    /// Credentials of the pod's secrets, then those of the node, that fit the image.
    async fn credentials<O: Objects>(&self, ask: &Ask<'_, O>, name: &str) -> Result<Vec<Credential>, StageError> {
        let failed = |error: &keyring::Error| StageError::new("ErrImagePull", describe(error));
        let repository = api::image::Reference::parse(name).map(|reference| reference.repository).unwrap_or_default();
        let (mut keyring, mut missing) = (Keyring::default(), Vec::new());
        let namespace = ask.pod.metadata.namespace.as_deref().unwrap_or_default();
        let secrets = ask.pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
        for secret in secrets.map(|secret| secret.name.as_str()).filter(|name| !name.is_empty()) {
            match ask.objects.secret(namespace, secret).await {
                Ok(secret) => keyring.add_secret(&secret).map_err(|error| failed(&error))?,
                Err(error) => {
                    tracing::info!(secret, error = %describe(&error), "image pull secret cannot be read");
                    missing.push(secret);
                }
            }
        }
        if !missing.is_empty() {
            let text = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            ask.say.event(Event::warning("FailedToRetrieveImagePullSecret", &text));
        }
        let folders = self.folders.clone();
        let node = tokio::task::spawn_blocking(move || keyring::of_node(&folders)).await.unwrap_or_default();
        let mut found = keyring.lookup(&repository);
        found.extend(node.lookup(&repository));
        Ok(found)
    }

    async fn pull<'a, O>(
        &self,
        ask: &Ask<'_, O>,
        name: &str,
        credentials: &'a [Credential],
    ) -> Result<(Image, Option<&'a Credential>), StageError> {
        let named = ask.named();
        ask.tell(Event::normal("Pulling", &format!("Pulling image {named:?}")));
        let asked = Instant::now();
        let pulling = async {
            let _slot = match &self.slots {
                // Closed only when the puller is dropped.
                Some(slots) => slots.acquire().await.ok(),
                None => None,
            };
            let begun = Instant::now();
            (self.pull_with(ask.pod, name, credentials).await, begun.elapsed())
        };
        let Some((pulled, took)) = ask.over.run_until_cancelled(pulling).await else {
            return Err(StageError::new("ErrImagePull", format!("pull of image {named:?} given up: the pod ended")));
        };
        let used = pulled.map_err(|text| {
            ask.tell(Event::warning("Failed", &format!("Failed to pull image {named:?}: {text}")));
            classify(named, &text)
        })?;
        let there = self.inspect(name).await.map_err(|error| StageError::new("ErrImagePull", error.rpc_text()))?;
        let (image, size) = there.ok_or_else(|| {
            StageError::new("ErrImagePull", format!("image {name:?} is not there after it was pulled"))
        })?;
        let text = format!(
            "Successfully pulled image {named:?} in {} ({} including waiting). Image size: {size} bytes.",
            rounded(took),
            rounded(asked.elapsed())
        );
        Pulls::took(size, asked.elapsed());
        ask.tell(Event::normal("Pulled", &text));
        Ok((image, used))
    }

    /// Tries each credential in turn; answers with the one that was good.
    async fn pull_with<'a>(
        &self,
        pod: &Pod,
        name: &str,
        credentials: &'a [Credential],
    ) -> Result<Option<&'a Credential>, String> {
        let annotations = pod.metadata.annotations.clone().unwrap_or_default();
        let image = ImageSpec { annotations: annotations.into_iter().collect(), ..spec(name) };
        let tries: Vec<Option<&Credential>> =
            if credentials.is_empty() { vec![None] } else { credentials.iter().map(Some).collect() };
        let mut errors = Vec::new();
        for credential in tries {
            if !self.rate.lock().unwrap_or_else(PoisonError::into_inner).try_take() {
                errors.push("pull QPS exceeded".to_owned());
                continue;
            }
            let request = PullImageRequest {
                image: Some(image.clone()),
                auth: credential.map(Credential::auth),
                sandbox_config: Some(request::pod_identity(pod)),
            };
            let begun = Instant::now();
            match Box::pin(self.runtime.pull_image(request)).await {
                Ok(_) => {
                    Pulls::pulled(pod.metadata.uid.as_deref().unwrap_or_default(), begun, Instant::now());
                    return Ok(credential);
                }
                Err(error) => errors.push(error.pull_text()),
            }
        }
        Err(aggregate(errors))
    }

    async fn inspect(&self, name: &str) -> Result<Option<(Image, u64)>, cri::CallError> {
        let request = ImageStatusRequest { image: Some(spec(name)), verbose: false };
        let answer = self.runtime.image_status(request).await?;
        Ok(answer.image.map(|image| {
            let user = ImageUser { uid: user_id(&image), name: image.username };
            (Image { reference: image.id, user }, image.size)
        }))
    }
}

/// apimachinery's aggregate: equal errors once, several in brackets.
fn aggregate(errors: Vec<String>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for error in errors {
        if !distinct.contains(&error) {
            distinct.push(error);
        }
    }
    match distinct.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// The reason of a failed pull: runtimes say some in the first word (k8s.io/cri-api/pkg/errors).
fn classify(named: &str, text: &str) -> StageError {
    for (reason, why) in [
        ("RegistryUnavailable", "the registry is unavailable"),
        ("SignatureValidationFailed", "the signature validation failed"),
    ] {
        if let Some(rest) = text.strip_prefix(reason) {
            return StageError::new(reason, format!("image pull failed for {named} because {why}{rest}"));
        }
    }
    StageError::new("ErrImagePull", text)
}

/// An image without any user runs as root.
fn user_id(image: &cri::v1::Image) -> Option<i64> {
    match &image.uid {
        Some(uid) => Some(uid.value),
        None => image.username.is_empty().then_some(0),
    }
}

fn spec(name: &str) -> ImageSpec {
    ImageSpec { image: name.to_owned(), ..ImageSpec::default() }
}

/// As Go prints a duration that was rounded to milliseconds.
fn rounded(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 { format!("{millis}ms") } else { format!("{}.{:03}s", millis / 1000, millis % 1000) }
}

#[cfg(test)]
mod tests;
