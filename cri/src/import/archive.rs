//! Reads image archives: `docker save`'s format and OCI layouts, as plain tar files. Layers are not copied: a blob is a range
//! of the archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;

use super::ImportError;
use super::image::{Blob, Image, LAYER};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// A file inside the archive.
#[derive(Clone, Copy)]
struct Range {
    offset: u64,
    size: u64,
}

struct Archive<'a> {
    path: &'a Path,
    entries: BTreeMap<String, Range>,
}

/// Reads the images of an archive.
///
/// # Errors
/// When the file cannot be read or is in neither format.
pub fn read_archive(path: &Path) -> Result<Vec<Image>, ImportError> {
    let archive = Archive::open(path)?;
    if archive.entries.contains_key("manifest.json") {
        let images: Vec<DockerImage> = archive.json("manifest.json")?;
        return images.into_iter().map(|image| archive.docker_image(image)).collect();
    }
    if archive.entries.contains_key("index.json") {
        let index: Index = archive.json("index.json")?;
        return index.manifests.iter().map(|m| archive.oci_image(m)).collect();
    }
    Err(archive.bad("it has neither manifest.json nor index.json"))
}

impl<'a> Archive<'a> {
    fn open(path: &'a Path) -> Result<Self, ImportError> {
        let read = |source| ImportError::Read { path: path.to_owned(), source };
        let mut tar = tar::Archive::new(File::open(path).map_err(read)?);
        let mut entries = BTreeMap::new();
        for entry in tar.entries_with_seek().map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = entry.path().map_err(read)?.to_string_lossy().trim_start_matches("./").to_owned();
            entries.insert(name, Range { offset: entry.raw_file_position(), size: entry.size() });
        }
        Ok(Self { path, entries })
    }

    fn docker_image(&self, image: DockerImage) -> Result<Image, ImportError> {
        let config = self.blob("application/vnd.oci.image.config.v1+json", &image.config)?;
        let layers = image.layers.iter().map(|l| self.blob(self.layer_type(l)?, l)).collect::<Result<_, _>>()?;
        Ok(Image::assemble(image.repo_tags.unwrap_or_default(), config, layers))
    }

    fn oci_image(&self, descriptor: &Descriptor) -> Result<Image, ImportError> {
        let name = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
            .iter()
            .find_map(|key| descriptor.annotations.get(*key))
            .ok_or_else(|| self.bad("a manifest in index.json has no name annotation"))?;
        let manifest: Manifest = self.json(&blob_path(&descriptor.digest))?;
        let blob = |d: &Descriptor| self.blob(&d.media_type, &blob_path(&d.digest));
        let layers = manifest.layers.iter().map(blob).collect::<Result<_, _>>()?;
        Ok(Image::assemble(vec![name.clone()], blob(&manifest.config)?, layers))
    }

    fn blob(&self, media_type: &str, name: &str) -> Result<Blob, ImportError> {
        let range = self.range(name)?;
        Blob::file(media_type, self.path, range.offset, range.size)
    }

    /// docker archives do not say whether a layer is compressed: its first bytes do.
    fn layer_type(&self, name: &str) -> Result<&'static str, ImportError> {
        let magic = self.bytes(name, 4)?;
        Ok(match magic.as_slice() {
            [0x1f, 0x8b, ..] => "application/vnd.oci.image.layer.v1.tar+gzip",
            [0x28, 0xb5, 0x2f, 0xfd] => "application/vnd.oci.image.layer.v1.tar+zstd",
            _ => LAYER,
        })
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, ImportError> {
        let bytes = self.bytes(name, u64::MAX)?;
        serde_json::from_slice(&bytes).map_err(|e| self.bad(&format!("{name}: {e}")))
    }

    fn bytes(&self, name: &str, most: u64) -> Result<Vec<u8>, ImportError> {
        let range = self.range(name)?;
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(self.path)?;
            file.seek(SeekFrom::Start(range.offset))?;
            let mut bytes = Vec::new();
            file.take(range.size.min(most)).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|source| ImportError::Read { path: self.path.to_owned(), source })
    }

    fn range(&self, name: &str) -> Result<Range, ImportError> {
        self.entries.get(name).copied().ok_or_else(|| self.bad(&format!("{name} is missing")))
    }

    fn bad(&self, why: &str) -> ImportError {
        ImportError::Format { path: self.path.to_owned(), why: why.to_owned() }
    }
}

/// Where an OCI layout keeps a blob.
fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}
