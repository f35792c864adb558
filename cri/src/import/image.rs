//! An image as containerd stores it: blobs by digest, a manifest over them, and names.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_stream::Stream;

use super::ImportError;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// containerd's content service takes at most 4 MiB a message.
const CHUNK: usize = 1024 * 1024;

/// What a container of the image runs when the pod does not say.
#[derive(Debug, Clone, Default)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: String,
    pub user: String,
}

/// One image, ready to be imported.
#[derive(Debug, Clone)]
pub struct Image {
    /// Full references, e.g. `registry.k8s.io/pause:3.10`.
    pub names: Vec<String>,
    pub(super) labels: HashMap<String, String>,
    pub(super) manifest: Blob,
    pub(super) config: Blob,
    pub(super) layers: Vec<Blob>,
}

impl Image {
    /// An image of one uncompressed tar layer in memory, for the machine's own architecture.
    #[must_use]
    pub fn from_layer(name: &str, config: &ImageConfig, layer: Vec<u8>) -> Self {
        let layer = Blob::memory(LAYER, layer);
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": config.entrypoint,
                "Cmd": config.cmd,
                "Env": config.env,
                "WorkingDir": config.working_dir,
                "User": config.user,
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        });
        let config = Blob::memory(CONFIG, config.to_string().into_bytes());
        Self::assemble(vec![name.to_owned()], config, vec![layer])
    }

    /// Marks the image so that neither the runtime nor a node agent collects it.
    #[must_use]
    pub fn pinned(mut self) -> Self {
        self.labels.insert("io.cri-containerd.pinned".into(), "pinned".into());
        self
    }

    /// The digest of its manifest.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// The digest of its configuration, which is what runtimes call the image's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.config.digest
    }

    /// Makes the manifest over blobs that are known.
    pub(super) fn assemble(names: Vec<String>, config: Blob, layers: Vec<Blob>) -> Self {
        let descriptor = |b: &Blob| json!({"mediaType": b.media_type, "digest": b.digest, "size": b.size});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(&config),
            "layers": layers.iter().map(descriptor).collect::<Vec<_>>(),
        });
        let manifest = Blob::memory(MANIFEST, manifest.to_string().into_bytes());
        let labels = [("io.cri-containerd.image".to_owned(), "managed".to_owned())].into();
        Self { names, labels, manifest, config, layers }
    }

    /// What ties the blobs to their manifest in containerd's garbage collection.
    pub(super) fn gc_labels(&self) -> HashMap<String, String> {
        let mut labels: HashMap<_, _> = self
            .layers
            .iter()
            .enumerate()
            .map(|(i, l)| (format!("containerd.io/gc.ref.content.l.{i}"), l.digest.clone()))
            .collect();
        labels.insert("containerd.io/gc.ref.content.config".into(), self.config.digest.clone());
        labels
    }
}

/// One piece of content, in memory or a range of a file.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Memory(Vec<u8>),
    File { path: PathBuf, offset: u64 },
}

impl Blob {
    pub fn memory(media_type: &str, bytes: Vec<u8>) -> Self {
        let digest = named(Sha256::digest(&bytes).as_slice());
        Self { media_type: media_type.into(), digest, size: bytes.len() as u64, source: Source::Memory(bytes) }
    }

    /// A range of a file; reads it once for its digest.
    pub fn file(media_type: &str, path: &Path, offset: u64, size: u64) -> Result<Self, ImportError> {
        let source = Source::File { path: path.to_owned(), offset };
        let mut blob = Self { media_type: media_type.into(), digest: String::new(), size, source };
        let mut hash = Sha256::new();
        let mut reader = blob.open()?;
        io::copy(&mut reader, &mut HashWriter(&mut hash))
            .map_err(|source| ImportError::Read { path: path.to_owned(), source })?;
        blob.digest = named(hash.finalize().as_slice());
        Ok(blob)
    }

    pub fn hex(&self) -> &str {
        self.digest.strip_prefix("sha256:").unwrap_or(&self.digest)
    }

    pub fn open(&self) -> Result<Reader, ImportError> {
        match &self.source {
            Source::Memory(bytes) => Ok(Reader(Box::new(io::Cursor::new(bytes.clone())))),
            Source::File { path, offset } => {
                let open = || -> io::Result<_> {
                    let mut file = File::open(path)?;
                    file.seek(SeekFrom::Start(*offset))?;
                    Ok(file.take(self.size))
                };
                let file = open().map_err(|source| ImportError::Read { path: path.clone(), source })?;
                Ok(Reader(Box::new(file)))
            }
        }
    }
}

/// The bytes of a blob.
pub(super) struct Reader(Box<dyn Read + Send>);

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Reader {
    /// The bytes in pieces with their offsets. A read error ends the stream early, and containerd then refuses the commit
    /// because size and digest are not what was announced.
    pub fn chunks(mut self) -> impl Stream<Item = (u64, Vec<u8>)> + Send + 'static {
        let mut offset = 0u64;
        tokio_stream::iter(std::iter::from_fn(move || {
            let mut data = Vec::with_capacity(CHUNK);
            let read = (&mut self.0).take(CHUNK as u64).read_to_end(&mut data).ok()?;
            if read == 0 {
                return None;
            }
            let at = offset;
            offset += read as u64;
            Some((at, data))
        }))
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.update(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn named(digest: &[u8]) -> String {
    format!("sha256:{}", base16ct::lower::encode_string(digest))
}

/// GOARCH's name of this machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
