//! The pause image, put into the runtime under the name that the runtime expects: no registry is needed to start a pod.

use std::time::Duration;

use cri::import::{Image, ImageConfig, import};
use cri::v1;
use serde_json::Value;

use crate::client::backoff::Backoff;
use crate::client::watch::describe;

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

/// Sees to it that the image is there, however long the runtime takes to come up. An image of that name that is there
/// already is the administrator's, and stays.
pub async fn ensure(runtime: cri::Client) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    while let Err(error) = place(&runtime).await {
        tracing::warn!(error = %describe(&error), "pause image is not in place, will retry");
        backoff.wait().await;
    }
}

/// The name under which the runtime looks for the image of sandboxes.
///
/// # Errors
/// The runtime does not answer.
pub async fn name(runtime: &cri::Client) -> Result<String, cri::CallError> {
    let status = runtime.status(v1::StatusRequest { verbose: true }).await?;
    Ok(status.info.get("config").and_then(|config| sandbox_image(config)).unwrap_or_else(|| DEFAULT.to_owned()))
}

/// Removes the image, if it is ours: one of that name that somebody else brought has another id.
///
/// # Errors
/// The runtime does not answer.
pub async fn remove(runtime: &cri::Client) -> Result<(), Error> {
    let name = name(runtime).await?;
    let spec = v1::ImageSpec { image: name.clone(), ..v1::ImageSpec::default() };
    let request = v1::ImageStatusRequest { image: Some(spec.clone()), verbose: false };
    let known = runtime.image_status(request).await?.image;
    if known.is_some_and(|known| image(&name).is_ok_and(|ours| ours.id() == known.id)) {
        runtime.remove_image(v1::RemoveImageRequest { image: Some(spec) }).await?;
    }
    Ok(())
}

fn image(name: &str) -> Result<Image, std::io::Error> {
    let config = ImageConfig { entrypoint: vec!["/pause".into()], ..ImageConfig::default() };
    Ok(Image::from_layer(name, &config, pause::layer()?).pinned())
}

async fn place(runtime: &cri::Client) -> Result<(), Error> {
    let name = name(runtime).await?;
    let spec = v1::ImageSpec { image: name.clone(), ..v1::ImageSpec::default() };
    let known = runtime.image_status(v1::ImageStatusRequest { image: Some(spec), verbose: false }).await?;
    if known.image.is_some() {
        return Ok(());
    }
    import(runtime, &image(&name)?).await.map_err(|error| Error::Import(name.clone(), error))?;
    tracing::info!(image = %name, "pause image imported");
    Ok(())
}

/// containerd's CRI configuration names it: `sandboxImage` up to 1.7, `pinnedImages.sandbox` since 2.0.
fn sandbox_image(config: &str) -> Option<String> {
    let config: Value = serde_json::from_str(config).ok()?;
    let names = [config.get("sandboxImage"), config.pointer("/pinnedImages/sandbox")];
    names.into_iter().flatten().find_map(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_names_its_pause_image() {
        assert_eq!(sandbox_image(r#"{"sandboxImage":"a/pause:3.6"}"#).as_deref(), Some("a/pause:3.6"));
        assert_eq!(sandbox_image(r#"{"pinnedImages":{"sandbox":"b/pause:3.10"}}"#).as_deref(), Some("b/pause:3.10"));
        assert_eq!(sandbox_image(r#"{"sandboxImage":""}"#), None);
        assert_eq!(sandbox_image("no json"), None);
    }
}
