//! Puts images into containerd without a registry: an archive on disk (docker-archive or OCI layout), or a layer in memory.
//!
//! Content goes into containerd's content store under a lease, then the image's name is bound to its manifest; CRI notices the
//! new name by itself, and [`import`] returns once it has.

mod archive;
mod image;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Request};

pub use archive::read_archive;
pub use image::{Image, ImageConfig};

use crate::Client;
use crate::containerd::content::content_client::ContentClient;
use crate::containerd::content::{InfoRequest, WriteAction, WriteContentRequest};
use crate::containerd::images::images_client::ImagesClient;
use crate::containerd::images::{self, CreateImageRequest, UpdateImageRequest};
use crate::containerd::leases::leases_client::LeasesClient;
use crate::containerd::leases::{CreateRequest, DeleteRequest};
use crate::v1::{ImageSpec, ImageStatusRequest};
use image::{Blob, Reader};

/// The containerd namespace in which its CRI plugin works.
const NAMESPACE: &str = "k8s.io";
/// How long CRI may take to notice a new image before we call the import failed.
const NOTICE: Duration = Duration::from_secs(30);

/// Why an image could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no image archive: {why}")]
    Format { path: PathBuf, why: String },
    #[error("{what} of image {image}: {}", .status.message())]
    Containerd { image: String, what: &'static str, status: Box<tonic::Status> },
    #[error("image {image} was imported, but the runtime's CRI does not list it")]
    Unnoticed { image: String },
}

/// Imports one image under all its names. Importing it again changes nothing.
///
/// # Errors
/// When the archive cannot be read or containerd refuses; what was written is then collected by containerd's GC.
pub async fn import(client: &Client, image: &Image) -> Result<(), ImportError> {
    let lease = format!("keelson-import-{}", image.manifest.hex());
    let mut leases = LeasesClient::new(client.channel());
    let create = CreateRequest { id: lease.clone(), labels: [expiry_label()].into() };
    match leases.create(scoped(create, None)).await {
        Ok(_) => {}
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => return Err(refused(image, "lease for the content", status)),
    }
    let result = write_all(client, image, &lease).await;
    // A lease that stays expires by its label; the import's own result matters more.
    let _ = leases.delete(scoped(DeleteRequest { id: lease, sync: false }, None)).await;
    result?;
    for name in &image.names {
        noticed(client, name).await?;
    }
    Ok(())
}

async fn write_all(client: &Client, image: &Image, lease: &str) -> Result<(), ImportError> {
    let mut content = ContentClient::new(client.channel());
    for blob in image.layers.iter().chain([&image.config]) {
        write_blob(&mut content, image, blob, lease, [].into()).await?;
    }
    write_blob(&mut content, image, &image.manifest, lease, image.gc_labels()).await?;
    // Also by its id, as images are that the runtime itself pulls: it looks one up by that to mount it as a volume.
    for name in image.names.iter().map(String::as_str).chain([image.id()]) {
        bind_name(client, image, name, lease).await?;
    }
    Ok(())
}

async fn write_blob(
    content: &mut ContentClient<Channel>,
    image: &Image,
    blob: &Blob,
    lease: &str,
    labels: std::collections::HashMap<String, String>,
) -> Result<(), ImportError> {
    let known = content.info(scoped(InfoRequest { digest: blob.digest.clone() }, Some(lease))).await;
    if known.is_ok() {
        return Ok(());
    }
    let total = i64::try_from(blob.size).unwrap_or(i64::MAX);
    let reference = format!("keelson-{}", blob.digest);
    let reader = blob.open()?;
    let expected = blob.digest.clone();
    let commit = WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: reference.clone(),
        total,
        expected: expected.clone(),
        offset: total,
        data: Vec::new(),
        labels,
    };
    let chunks = Reader::chunks(reader).map(move |(offset, data)| WriteContentRequest {
        action: WriteAction::Write.into(),
        r#ref: reference.clone(),
        total,
        expected: expected.clone(),
        offset: i64::try_from(offset).unwrap_or(i64::MAX),
        data,
        labels: [].into(),
    });
    let stream = chunks.chain(tokio_stream::once(commit));
    let result = async {
        let mut answers = content.write(scoped(stream, Some(lease))).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    };
    match result.await {
        Ok(()) => Ok(()),
        Err(status) if tonic::Status::code(&status) == Code::AlreadyExists => Ok(()),
        Err(status) => Err(refused(image, "content", status)),
    }
}

async fn bind_name(client: &Client, image: &Image, name: &str, lease: &str) -> Result<(), ImportError> {
    let mut images = ImagesClient::new(client.channel());
    let record = images::Image {
        name: name.to_owned(),
        labels: image.labels.clone(),
        target: Some(images::Descriptor {
            media_type: image.manifest.media_type.clone(),
            digest: image.manifest.digest.clone(),
            size: i64::try_from(image.manifest.size).unwrap_or(i64::MAX),
            annotations: [].into(),
        }),
    };
    let created = images.create(scoped(CreateImageRequest { image: Some(record.clone()) }, Some(lease))).await;
    match created {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::AlreadyExists => images
            .update(scoped(UpdateImageRequest { image: Some(record) }, Some(lease)))
            .await
            .map(drop)
            .map_err(|status| refused(image, "name", status)),
        Err(status) => Err(refused(image, "name", status)),
    }
}

/// CRI reads image names from containerd's events: wait until it has.
async fn noticed(client: &Client, name: &str) -> Result<(), ImportError> {
    let mut wait = Duration::from_millis(5);
    let give_up = tokio::time::Instant::now() + NOTICE;
    loop {
        let spec = ImageSpec { image: name.to_owned(), ..ImageSpec::default() };
        let status = client.image_status(ImageStatusRequest { image: Some(spec), verbose: false }).await;
        if status.is_ok_and(|s| s.image.is_some()) {
            return Ok(());
        }
        if tokio::time::Instant::now() >= give_up {
            return Err(ImportError::Unnoticed { image: name.to_owned() });
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_millis(500));
    }
}

fn scoped<T>(message: T, lease: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
    if let Some(value) = lease.and_then(|l| l.parse().ok()) {
        request.metadata_mut().insert("containerd-lease", value);
    }
    request
}

/// Should we die before the lease is deleted, containerd deletes it after a day.
fn expiry_label() -> (String, String) {
    let tomorrow = std::time::SystemTime::now() + Duration::from_secs(24 * 3600);
    let time = prost_types::Timestamp::from(tomorrow).to_string();
    ("containerd.io/gc.expire".into(), time)
}

fn refused(image: &Image, what: &'static str, status: tonic::Status) -> ImportError {
    let image = image.names.first().cloned().unwrap_or_default();
    ImportError::Containerd { image, what, status: Box::new(status) }
}
