//! Mounting and unmounting.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{Error, fs as files};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Mounts a tmpfs on a folder where none is yet. `size` in bytes; the kernel's half of memory where unset.
pub fn tmpfs(path: &Path, size: Option<u64>) -> Result<(), Error> {
    if files::on_other_device(path)? {
        return Ok(());
    }
    let options = size.map(|bytes| format!("size={bytes}"));
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), options.as_deref())
        .map_err(Error::errno("mount tmpfs on", path))
}

/// Mounts huge pages of `size` bytes on a folder where nothing is mounted yet.
pub fn huge_pages(path: &Path, size: u64) -> Result<(), Error> {
    if files::on_other_device(path)? {
        return Ok(());
    }
    let options = format!("pagesize={size}");
    mount(Some("nodev"), path, Some("hugetlbfs"), MsFlags::empty(), Some(options.as_str()))
        .map_err(Error::errno("mount hugetlbfs on", path))
}

/// Unmounts everything at and below `path`, the last mounted first.
pub fn unmount_below(path: &Path) -> Result<(), Error> {
    for point in below(path)? {
        match umount2(&point, MntFlags::UMOUNT_NOFOLLOW) {
            // Not a mount any more: another teardown was faster, or it went with one above it.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            // A process of the host holds a file there. The pod is gone; let go when that process does.
            Err(Errno::EBUSY) => umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
                .map_err(Error::errno("unmount", &point))?,
            Err(errno) => return Err(Error::errno("unmount", &point)(errno)),
        }
    }
    Ok(())
}

/// Mount points at and below `path`, the last mounted first. The kernel names them by their real paths, and the folder of a
/// node's pods may be reached through a link.
pub fn below(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let text = fs::read_to_string(MOUNTINFO).map_err(Error::io("read", Path::new(MOUNTINFO)))?;
    let mut points: Vec<_> = text.lines().filter_map(point).filter(|p| p.starts_with(&path)).collect();
    points.reverse();
    Ok(points)
}

/// The fifth field of a mountinfo line, with its octal escapes undone.
fn point(line: &str) -> Option<PathBuf> {
    Some(PathBuf::from(unescape(line.split(' ').nth(4)?)))
}

fn unescape(text: &str) -> String {
    let mut out = text.to_owned();
    for (escape, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        if out.contains(escape) {
            out = out.replace(escape, plain);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_mountinfo() {
        let line = r"36 35 98:0 / /var/lib/a\040b\134c rw shared:1 - ext3 /dev/root rw";
        assert_eq!(point(line), Some(PathBuf::from("/var/lib/a b\\c")));
        assert_eq!(point("36 35"), None);
    }
}
