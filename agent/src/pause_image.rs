//! The pause image, put into the runtime under the name that the runtime expects: no registry is needed to start a pod.

use std::path::Path;

use cri::import::{Image, ImageConfig, import};
use cri::v1;

use crate::config::write_atomic;
use crate::runtime_info::{self, RuntimeInfo};

/// The file, below the agent's data folder: a JSON list of the ids of images that were imported.
const FILE: &str = "pause-images.json";
/// What containerd uses where it does not say which.
const DEFAULT: &str = "registry.k8s.io/pause:3.10";

/// Why the image is not in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("ask the runtime")]
    Runtime(#[from] cri::CallError),
    #[error("make the image")]
    Make(#[from] std::io::Error),
    #[error("import {0}")]
    Import(String, #[source] cri::import::ImportError),
}

/// The name under which the runtime looks for the image of sandboxes.
///
/// # Errors
/// The runtime does not answer.
pub async fn name(runtime: &cri::Client) -> Result<String, cri::CallError> {
    Ok(name_of(runtime_info::configured(runtime).await?))
}

fn name_of(runtime: RuntimeInfo) -> String {
    runtime.pause_image.unwrap_or_else(|| DEFAULT.to_owned())
}

/// Removes what was imported, under whichever names: an image that somebody else brought has another id.
///
/// # Errors
/// The runtime does not answer.
pub async fn remove(runtime: &cri::Client, data_dir: &Path) -> Result<(), Error> {
    let mut ours = imported(data_dir);
    ours.push(image(DEFAULT)?.id().to_owned());
    let there = runtime.list_images(v1::ListImagesRequest::default()).await?.images;
    for id in there.into_iter().map(|image| image.id).filter(|id| ours.contains(id)) {
        let spec = v1::ImageSpec { image: id, ..v1::ImageSpec::default() };
        runtime.remove_image(v1::RemoveImageRequest { image: Some(spec) }).await?;
    }
    Ok(())
}

fn imported(data_dir: &Path) -> Vec<String> {
    let text = std::fs::read(data_dir.join(FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Writes down that an image is ours: another version of the agent has another.
fn note(data_dir: &Path, id: &str) -> std::io::Result<()> {
    let mut ids = imported(data_dir);
    if ids.iter().any(|known| known == id) {
        return Ok(());
    }
    ids.push(id.to_owned());
    write_atomic(&data_dir.join(FILE), &serde_json::to_vec(&ids)?, 0o644)
}

fn image(name: &str) -> Result<Image, std::io::Error> {
    let config = ImageConfig { entrypoint: vec!["/pause".into()], ..ImageConfig::default() };
    Ok(Image::from_layer(name, &config, pause::layer()?).pinned())
}

/// Sees to it that the image is there. One of that name that is there already is the administrator's, and stays.
///
/// # Errors
/// The runtime does not answer, or does not take it.
pub async fn place(runtime: &cri::Client, info: RuntimeInfo, data_dir: &Path) -> Result<(), Error> {
    let name = name_of(info);
    let spec = v1::ImageSpec { image: name.clone(), ..v1::ImageSpec::default() };
    let known = runtime.image_status(v1::ImageStatusRequest { image: Some(spec), verbose: false }).await?;
    if known.image.is_some() {
        return Ok(());
    }
    let image = image(&name)?;
    note(data_dir, image.id())?;
    import(runtime, &image).await.map_err(|error| Error::Import(name.clone(), error))?;
    tracing::info!(image = %name, "pause image imported");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_that_was_imported_is_removed_by_what_it_is() {
        let (fake, data) = (cri::fake::Fake::default(), tempfile::tempdir().unwrap());
        let mine = image(DEFAULT).unwrap().id().to_owned();
        // The fake's ids are its names. The runtime names another image by now, and an earlier agent had another one.
        for name in [mine.strip_prefix("sha256:").unwrap(), "earlier", "theirs"] {
            fake.add_image(name);
        }
        note(data.path(), "sha256:earlier").unwrap();
        remove(&fake.client(), data.path()).await.unwrap();
        let mut removed: Vec<String> =
            fake.calls().into_iter().filter(|call| call.rpc == "RemoveImage").map(|call| call.id).collect();
        removed.sort();
        let mut ours = [mine, "sha256:earlier".to_owned()];
        ours.sort();
        assert_eq!(removed, ours);
    }
}
