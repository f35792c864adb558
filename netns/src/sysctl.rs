//! Network sysctls, which belong to a namespace.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, NetNs, Result};

/// Writes `value` to the sysctl `key` (slashes, below /proc/sys: `net/ipv4/ip_forward`) inside `namespace`.
///
/// # Errors
/// With [`Error::is_not_found`] when the kernel has no such key.
pub fn write(namespace: &NetNs, key: &str, value: &str) -> Result<()> {
    let (key, value) = (key.to_owned(), value.to_owned());
    namespace.run(move || write_current(&key, &value))?
}

/// Writes in the namespace of the calling thread. Nothing is written when the value is already there, which also
/// serves where /proc/sys is read-only and rightly set.
///
/// # Errors
/// As [`write`].
pub fn write_current(key: &str, value: &str) -> Result<()> {
    if read_current(key)? == value {
        return Ok(());
    }
    fs::write(path(key), value).map_err(|source| Error::Sysctl { key: key.to_owned(), source })
}

/// Reads the sysctl `key` in the namespace of the calling thread, without the line's end.
///
/// # Errors
/// As [`write`].
pub fn read_current(key: &str) -> Result<String> {
    let text = fs::read_to_string(path(key)).map_err(|source| Error::Sysctl { key: key.to_owned(), source })?;
    Ok(text.trim_end().to_owned())
}

fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}
