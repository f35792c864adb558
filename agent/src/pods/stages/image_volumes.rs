//! `image` volumes (KEP-4639): the image is pulled as a container's own, and the runtime mounts it.

use std::collections::{BTreeMap, BTreeSet};

use cri::v1::{ImageSpec, Mount};
use k8s_openapi::api::core::v1::{Container, Pod};
use pod::StartContainer;
use tokio_util::sync::CancellationToken;
use volumes::plan::MountPlan;

use super::{Job, Say, StageError};
use crate::images::Ask;
use crate::metrics::families::{IMAGE_VOLUME_ERRORS, IMAGE_VOLUMES, IMAGE_VOLUMES_MOUNTED};

/// The images of the volumes that a container mounts, by volume.
///
/// # Errors
/// Reasons of images.
pub async fn pull(
    job: &Job,
    pod: &Pod,
    container: &Container,
    start: &StartContainer,
    say: &Say<'_>,
    over: &CancellationToken,
) -> Result<BTreeMap<String, ImageSpec>, StageError> {
    let mounted: BTreeSet<&str> = container.volume_mounts.iter().flatten().map(|mount| mount.name.as_str()).collect();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut images = BTreeMap::new();
    for volume in volumes.filter(|volume| mounted.contains(volume.name.as_str())) {
        let Some(source) = &volume.image else { continue };
        // Pulled with the same rules, and told of the same container.
        let like = Container {
            name: container.name.clone(),
            image: source.reference.clone(),
            image_pull_policy: source.pull_policy.clone(),
            ..Container::default()
        };
        let ask = Ask { pod, container: &like, role: start.role, say, objects: &*job.context.objects, over };
        IMAGE_VOLUMES.count([]);
        let image = job.context.images.ensure(ask).await?;
        let spec = ImageSpec {
            image: image.reference,
            user_specified_image: source.reference.clone().unwrap_or_default(),
            ..ImageSpec::default()
        };
        images.insert(volume.name.clone(), spec);
    }
    Ok(images)
}

/// A container with mounts of images was created, or not.
pub fn counted<T>(images: usize, created: &Result<T, cri::CallError>) {
    // CRI's prefix of an error that is about such a mount.
    let failed = created.as_ref().is_err_and(|error| error.message().starts_with("ImageVolumeMountFailed"));
    for _ in 0..images {
        if failed { IMAGE_VOLUME_ERRORS.count([]) } else { IMAGE_VOLUMES_MOUNTED.count([]) }
    }
}

/// The mount of an image; it can only be read.
#[must_use]
pub fn mount(plan: &MountPlan, image: &ImageSpec, sub_path: Option<String>) -> Mount {
    Mount {
        container_path: plan.container_path.clone(),
        readonly: true,
        image: Some(image.clone()),
        image_sub_path: sub_path.unwrap_or_default(),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use volumes::plan::container_mounts;

    use super::*;

    #[test]
    fn an_image_is_mounted_read_only() {
        let mounts = serde_json::json!([{"name": "v", "mountPath": "/data"}]);
        let plans = container_mounts(&serde_json::from_value::<Vec<_>>(mounts).unwrap());
        let image = ImageSpec { image: "sha256:1".to_owned(), ..ImageSpec::default() };
        let with = |path: Option<&str>| mount(&plans[0], &image, path.map(str::to_owned));
        let whole = with(None);
        assert_eq!((whole.container_path.as_str(), whole.readonly), ("/data", true));
        assert_eq!((whole.image, whole.image_sub_path.as_str()), (Some(image.clone()), ""));
        assert_eq!(with(Some("a/b")).image_sub_path, "a/b");
    }
}
