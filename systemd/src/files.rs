//! Files that systemd reads: units, drop-ins, overrides.

use std::fs;
use std::io;
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

/// Writes a file, and makes its folder where there is none.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), FileError> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    written.map_err(|source| FileError { path: path.to_owned(), source })
}

/// Removes a file. Whether there was one.
pub(crate) fn remove(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(FileError { path: path.to_owned(), source }),
    }
}
