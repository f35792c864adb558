//! `fsGroup`: gives a volume's files to the pod's group (pkg/volume/volume_linux.go).

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use crate::plan::Ownership;
use crate::{Error, fs as files};

const READ_WRITE: u32 = 0o660;
const READ_ONLY: u32 = 0o440;
const SETGID: u32 = 0o2000;
const DIRECTORY: u32 = 0o110;

/// Gives `path` and all below it to the group, with the rights that the group needs. Nothing happens without a group.
///
/// # Errors
/// When an owner or mode cannot be changed.
pub fn apply(path: &Path, ownership: &Ownership, read_only: bool) -> Result<(), Error> {
    let Some(group) = ownership.fs_group else { return Ok(()) };
    let root = stat(path)?;
    if ownership.on_root_mismatch && fits(&root, group, read_only) {
        return Ok(());
    }
    walk(path, &root, group, read_only)
}

/// Whether a folder needs no change (`requiresPermissionChange`).
fn fits(metadata: &Metadata, group: u32, read_only: bool) -> bool {
    let wanted = bits(true, read_only);
    metadata.gid() == group && metadata.mode() & wanted == wanted
}

fn bits(directory: bool, read_only: bool) -> u32 {
    let files = if read_only { READ_ONLY } else { READ_WRITE };
    if directory { files | SETGID | DIRECTORY } else { files }
}

/// Children first: that the root fits then says that all below does.
fn walk(path: &Path, metadata: &Metadata, group: u32, read_only: bool) -> Result<(), Error> {
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(Error::io("read", path))? {
            let child = entry.map_err(Error::io("read", path))?.path();
            walk(&child, &stat(&child)?, group, read_only)?;
        }
    }
    lchown(path, None, Some(group)).map_err(Error::io("chown", path))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    files::chmod(path, metadata.mode() & 0o7777 | bits(metadata.is_dir(), read_only))
}

fn stat(path: &Path) -> Result<Metadata, Error> {
    fs::symlink_metadata(path).map_err(Error::io("stat", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn state(path: &Path) -> (u32, u32) {
        let metadata = fs::symlink_metadata(path).unwrap();
        (metadata.gid(), metadata.mode() & 0o7777)
    }

    /// Needs root, as everything that gives files away.
    #[test]
    fn group_gets_what_it_needs() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("v");
        fs::create_dir(&top).unwrap();
        files::chmod(&top, 0o755).unwrap();
        let outside = folder.path().join("outside");
        for file in [&top.join("f"), &outside] {
            fs::write(file, "").unwrap();
            files::chmod(file, 0o600).unwrap();
        }
        symlink(&outside, top.join("link")).unwrap();
        let ownership = Ownership { fs_group: Some(4711), ..Ownership::default() };
        apply(&top, &ownership, false).unwrap();
        assert_eq!(state(&top), (4711, 0o2775));
        assert_eq!(state(&top.join("f")), (4711, 0o660));
        assert_eq!(state(&top.join("link")).0, 4711);
        assert_eq!(state(&outside), (0, 0o600));

        fs::write(top.join("new"), "").unwrap();
        files::chmod(&top.join("new"), 0o600).unwrap();
        let lazy = Ownership { on_root_mismatch: true, ..ownership };
        apply(&top, &lazy, false).unwrap();
        assert_eq!(state(&top.join("new")).1, 0o600);
        apply(&top, &ownership, true).unwrap();
        assert_eq!(state(&top.join("new")), (4711, 0o640));
    }
}
