//! Files that systemd reads: units, drop-ins, overrides.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file that cannot be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("{path}")]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// Writes a file, and makes its folder where there is none. A power cut leaves what was there or what is to be: systemd takes an empty unit for
/// one that is masked, and the machine would boot without it.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), FileError> {
    replace(path, text).map_err(|source| FileError { path: path.to_owned(), source })
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    write_atomic(path, text.as_bytes(), 0o644)?;
    // The name is on the disk only when its folder is.
    File::open(folder)?.sync_all()
}

/// Writes a file so that readers see the old content or the new, and a power cut leaves either.
///
/// # Errors
/// What the filesystem said.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    // Hidden, and with a suffix that neither systemd nor containerd takes for the real thing.
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // Best effort: the error of the write is the one worth reporting.
        drop(fs::remove_file(&temporary));
    }
    written
}

/// Whether a file of this name is what [`write_atomic`] leaves of one of `files` where it is killed.
#[must_use]
pub fn is_unfinished(name: &str, files: &[&str]) -> bool {
    let inner = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
    let parts = inner.and_then(|inner| inner.rsplit_once('.'));
    parts.is_some_and(|(name, pid)| files.contains(&name) && pid.parse::<u32>().is_ok())
}

/// What such writes have left in a folder; nothing where there is none.
#[must_use]
pub fn unfinished(folder: &Path, files: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let found = entries.filter(|entry| is_unfinished(&entry.file_name().to_string_lossy(), files));
    found.map(|entry| entry.path()).collect()
}

/// Removes a file, and what writes of it that were cut short have left. Whether there was one.
pub(crate) fn remove(path: &Path) -> Result<bool, FileError> {
    if let (Some(folder), Some(file)) = (path.parent(), path.file_name()) {
        for left in unfinished(folder, &[&file.to_string_lossy()]) {
            remove_file(&left)?;
        }
    }
    remove_file(path)
}

fn remove_file(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(FileError { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_never_written_over() {
        let root = std::env::temp_dir().join(format!("keelson-files-{}", std::process::id()));
        let path = root.join("a/x.service");
        write(&path, "one\n").unwrap();
        // Who has the old one open, or holds it by another name, keeps it whole: so would a disk whose power is cut.
        let held = root.join("held");
        fs::hard_link(&path, &held).unwrap();
        write(&path, "two\n").unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!((read(&held).as_str(), read(&path).as_str()), ("one\n", "two\n"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, fs::metadata(&held).unwrap().mode() & 0o777);
        // What was killed on its way goes with it, and nothing else.
        for name in [".x.service.12.tmp", ".x.service.tmp", ".y.service.12.tmp"] {
            fs::write(root.join("a").join(name), "").unwrap();
        }
        assert!(remove(&path).unwrap() && !remove(&path).unwrap());
        assert_eq!(fs::read_dir(root.join("a")).unwrap().count(), 2);
        // What fails leaves nothing beside it.
        fs::create_dir(root.join("a/folder")).unwrap();
        assert_eq!(write(&root.join("a/folder"), "").unwrap_err().path, root.join("a/folder"));
        assert_eq!(fs::read_dir(root.join("a")).unwrap().count(), 3);
        fs::remove_dir_all(root).unwrap();
    }
}
