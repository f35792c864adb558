//! Images of containers: policy, pulls, and the events about them (pkg/kubelet/images/image_manager.go).

use std::sync::Arc;
use std::time::{Duration, Instant};

use cri::v1::{ImageSpec, ImageStatusRequest, PullImageRequest};
use k8s_openapi::api::core::v1::{Container, Pod};
use pod::{Event, Role};
use tokio::sync::Semaphore;

use super::stages::StageError;
use super::stages::request;
use super::stages::security::ImageUser;
use crate::pods::stages::Say;

/// An image that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What containers are made from.
    pub reference: String,
    pub user: ImageUser,
}

/// Gets images. Waits for a slot before it pulls; images that are there need none.
pub struct Puller {
    runtime: cri::Client,
    slots: Option<Arc<Semaphore>>,
}

impl Puller {
    /// At most `parallel` pulls at a time.
    #[must_use]
    pub fn new(runtime: cri::Client, parallel: Option<usize>) -> Self {
        Self { runtime, slots: parallel.map(|slots| Arc::new(Semaphore::new(slots.max(1)))) }
    }

    /// The image of a container, pulled where its policy says so.
    ///
    /// # Errors
    /// `InvalidImageName`, `ErrImageNeverPull`, `ImageInspectError`, `ErrImagePull`.
    pub async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        role: Role,
        say: &Say<'_>,
    ) -> Result<Image, StageError> {
        let named = container.image.as_deref().unwrap_or_default();
        let name = api::image::normalise(named).map_err(|error| {
            StageError::new("InvalidImageName", format!("Failed to apply default image tag {named:?}: {error}"))
        })?;
        let policy = container.image_pull_policy.as_deref().filter(|policy| !policy.is_empty());
        let policy = policy.unwrap_or_else(|| api::image::default_pull_policy(named));
        let tell = |event: Event| say.event(event.of_container(role, &container.name));
        let present = self.status(&name).await?;
        match (policy, present) {
            ("Always", _) | ("IfNotPresent", None) => {}
            (_, Some(image)) => {
                let text =
                    format!("Container image {named:?} already present on machine and can be accessed by the pod");
                tell(Event::normal("Pulled", &text));
                return Ok(image);
            }
            (_, None) => {
                let text = format!("Container image {named:?} is not present with pull policy of Never");
                return Err(StageError::new("ErrImageNeverPull", text));
            }
        }
        self.pull(pod, named, &name, &tell).await
    }

    async fn pull(&self, pod: &Pod, named: &str, name: &str, tell: &impl Fn(Event)) -> Result<Image, StageError> {
        tell(Event::normal("Pulling", &format!("Pulling image {named:?}")));
        let asked = Instant::now();
        let slot = match &self.slots {
            // Closed only when the puller is dropped.
            Some(slots) => slots.acquire().await.ok(),
            None => None,
        };
        let begun = Instant::now();
        let config = request::pod_identity(pod);
        let request = PullImageRequest { image: Some(spec(name)), auth: None, sandbox_config: Some(config) };
        let pulled = self.runtime.pull_image(request).await;
        drop(slot);
        if let Err(error) = pulled {
            let text = format!("failed to pull and unpack image {name:?}: {}", error.message());
            let text = if error.message().starts_with("failed to pull") { error.rpc_text() } else { text };
            tell(Event::warning("Failed", &format!("Failed to pull image {named:?}: {text}")));
            return Err(StageError::new("ErrImagePull", text));
        }
        let (image, size) = self.inspect(name).await?.ok_or_else(|| {
            StageError::new("ErrImagePull", format!("image {name:?} is not there after it was pulled"))
        })?;
        let text = format!(
            "Successfully pulled image {named:?} in {} ({} including waiting). Image size: {size} bytes.",
            rounded(begun.elapsed()),
            rounded(asked.elapsed())
        );
        tell(Event::normal("Pulled", &text));
        Ok(image)
    }

    async fn status(&self, name: &str) -> Result<Option<Image>, StageError> {
        Ok(self.inspect(name).await?.map(|(image, _)| image))
    }

    async fn inspect(&self, name: &str) -> Result<Option<(Image, u64)>, StageError> {
        let request = ImageStatusRequest { image: Some(spec(name)), verbose: false };
        let answer = self.runtime.image_status(request).await;
        let answer = answer.map_err(|error| StageError::new("ImageInspectError", error.rpc_text()))?;
        Ok(answer.image.map(|image| {
            let user = ImageUser { uid: user_id(&image), name: image.username };
            (Image { reference: image.id, user }, image.size)
        }))
    }
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
