//! The file that `master backup` writes: a gzipped tar with a manifest first, which has the SHA-256 of each part behind it.

use std::collections::BTreeMap;
use std::io::Read as _;

use anyhow::{Context as _, Result, bail, ensure};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "backup.json";
/// Raised when an older `master restore` could not read what is written.
const FORMAT: u32 = 1;

/// What is said of a backup before its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub format: u32,
    /// The version of the program that made it.
    pub made_by: String,
    pub created: String,
    /// The store's revision.
    pub revision: u64,
    pub objects: usize,
    /// Name of each part -> its SHA-256, in hex.
    pub sha256: BTreeMap<String, String>,
}

/// The parts of a backup, by name.
pub type Parts = BTreeMap<String, Vec<u8>>;

/// Packs parts into one file's content.
pub fn pack(created: String, revision: u64, objects: usize, parts: &Parts) -> Result<Vec<u8>> {
    let sha256 = parts.iter().map(|(name, bytes)| (name.clone(), digest(bytes))).collect();
    let made_by = env!("CARGO_PKG_VERSION").to_owned();
    let manifest = Manifest { format: FORMAT, made_by, created, revision, objects, sha256 };
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    append(&mut tar, MANIFEST, &serde_json::to_vec_pretty(&manifest)?)?;
    for (name, bytes) in parts {
        append(&mut tar, name, bytes)?;
    }
    Ok(tar.into_inner()?.finish()?)
}

fn append(tar: &mut tar::Builder<impl std::io::Write>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    tar.append_data(&mut header, name, bytes).with_context(|| format!("cannot pack {name}"))
}

/// Unpacks a backup and verifies every part of it.
pub fn unpack(bytes: &[u8]) -> Result<(Manifest, Parts)> {
    // As a whole first: only at its end does gzip tell a file from a part of it.
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).context("not a backup, or a damaged one")?;
    let mut tar = tar::Archive::new(plain.as_slice());
    let mut parts = Parts::new();
    for entry in tar.entries().context("not a backup")? {
        let mut entry = entry.context("not a backup, or a damaged one")?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let mut part = Vec::new();
        entry.read_to_end(&mut part).with_context(|| format!("{name} is damaged"))?;
        parts.insert(name, part);
    }
    let manifest = parts.remove(MANIFEST).context("not a backup: it has no backup.json")?;
    let manifest: Manifest = serde_json::from_slice(&manifest).context("backup.json is damaged")?;
    if manifest.format > FORMAT {
        bail!("format {} is later than {FORMAT}, the last that this version knows", manifest.format);
    }
    for (name, wanted) in &manifest.sha256 {
        let part = parts.get(name).with_context(|| format!("{name} is missing"))?;
        ensure!(digest(part) == *wanted, "{name} is damaged: its SHA-256 is not that of backup.json");
    }
    if let Some(name) = parts.keys().find(|name| !manifest.sha256.contains_key(*name)) {
        bail!("{name} is not of this backup: backup.json does not name it");
    }
    Ok((manifest, parts))
}

fn digest(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// The same file with its plain content changed, and a checksum of gzip that fits.
    fn repack(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut plain = Vec::new();
        GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
        change(&mut plain);
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(&plain).unwrap();
        packed.finish().unwrap()
    }

    fn parts() -> Parts {
        Parts::from([("store".to_owned(), b"objects".to_vec()), ("pki/ca.key".to_owned(), b"secret".to_vec())])
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let packed = pack("2026-01-02T03:04:05Z".into(), 7, 3, &parts()).unwrap();
        let (manifest, unpacked) = unpack(&packed).unwrap();
        assert_eq!((manifest.revision, manifest.objects, manifest.format), (7, 3, FORMAT));
        assert_eq!(unpacked, parts());
    }

    #[test]
    fn a_part_of_a_backup_is_refused() {
        let packed = pack(String::new(), 7, 3, &parts()).unwrap();
        for end in 0..packed.len() {
            unpack(&packed[..end]).unwrap_err();
        }
    }

    #[test]
    fn a_changed_byte_is_named() {
        let packed = pack(String::new(), 7, 3, &parts()).unwrap();
        let changed = repack(&packed, |plain| {
            let at = plain.windows(7).rposition(|w| w == b"objects").unwrap();
            plain[at] = b'O';
        });
        let error = unpack(&changed).unwrap_err();
        assert_eq!(error.to_string(), "store is damaged: its SHA-256 is not that of backup.json");
    }
}
