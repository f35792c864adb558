//! Small file operations with their path in the error.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::Error;

/// Creates a folder and those above it; one that exists is fine.
pub fn make_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// Sets permission bits, whatever the umask.
pub fn chmod(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::io("chmod", path))
}

/// Sets the permission bits of user, group and others. What else a mode says stays, as the sticky bit of a tmpfs.
pub fn allow(path: &Path, permissions: u32) -> Result<(), Error> {
    let mode = fs::metadata(path).map_err(Error::io("stat", path))?.mode();
    if mode & 0o777 == permissions { Ok(()) } else { chmod(path, mode & 0o7000 | permissions) }
}

/// Removes a file or symlink; one that is not there is removed.
pub fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Whether something is mounted on `path` that its parent is not on. True for tmpfs; a bind mount of the same file
/// system is not seen.
pub fn on_other_device(path: &Path) -> Result<bool, Error> {
    let Some(parent) = path.parent() else { return Ok(true) };
    let device = |p: &Path| fs::metadata(p).map(|m| m.dev()).map_err(Error::io("stat", p));
    Ok(device(path)? != device(parent)?)
}
