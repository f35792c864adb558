//! Mounting and unmounting.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{Error, fs as files};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Mounts a tmpfs on a folder where none is yet. `size` in bytes; the kernel's half of memory where unset. Its pages are not swapped, where the
/// kernel knows how to promise that (6.4): they may be secrets. Answers whether it was mounted now, and is empty.
pub fn tmpfs(path: &Path, size: Option<u64>) -> Result<bool, Error> {
    if files::on_other_device(path)? {
        return Ok(false);
    }
    let size = size.map_or_else(String::new, |bytes| format!("size={bytes}"));
    let mounted = |options: &str| mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options));
    let done = match mounted(&format!("noswap,{size}")) {
        Err(Errno::EINVAL) => mounted(&size),
        done => done,
    };
    done.map_err(Error::errno("mount tmpfs on", path))?;
    Ok(true)
}

/// Mounts huge pages of `size` bytes on a folder where nothing is mounted yet. Answers whether they were mounted now.
pub fn huge_pages(path: &Path, size: u64) -> Result<bool, Error> {
    if files::on_other_device(path)? {
        return Ok(false);
    }
    let options = format!("pagesize={size}");
    mount(Some("nodev"), path, Some("hugetlbfs"), MsFlags::empty(), Some(options.as_str()))
        .map_err(Error::errno("mount hugetlbfs on", path))?;
    Ok(true)
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
    let text = fs::read(MOUNTINFO).map_err(Error::io("read", Path::new(MOUNTINFO)))?;
    let mut points: Vec<_> = points(&text).filter(|p| p.starts_with(&path)).collect();
    points.reverse();
    Ok(points)
}

/// The mount points of a mountinfo file. Their names are bytes: one of another pod's, or of anybody's, need not be text.
fn points(text: &[u8]) -> impl Iterator<Item = PathBuf> {
    text.split(|byte| *byte == b'\n').filter_map(point)
}

/// The fifth field of a mountinfo line, with its octal escapes undone.
fn point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|byte| *byte == b' ').nth(4)?;
    Some(PathBuf::from(OsString::from_vec(unescape(field))))
}

/// A backslash and three octal digits are the byte that would otherwise end a field or a line.
fn unescape(mut text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        match rest.split_first_chunk().and_then(|(digits, rest)| Some((octal(*digits)?, rest))) {
            Some((byte, after)) if *first == b'\\' => {
                out.push(byte);
                text = after;
            }
            _ => {
                out.push(*first);
                text = rest;
            }
        }
    }
    out
}

fn octal(digits: [u8; 3]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_mountinfo() {
        let line = br"36 35 98:0 / /var/lib/a\040b\134c\134040\ rw shared:1 - ext3 /dev/root rw";
        assert_eq!(point(line), Some(PathBuf::from(r"/var/lib/a b\c\040\")));
        assert_eq!(point(b"36 35"), None);
    }

    #[test]
    fn a_name_that_is_no_text_hides_no_others() {
        let text = b"1 0 0:1 / /a\xff\\012 rw - tmpfs t rw\n2 0 0:1 / /b rw - tmpfs t rw\n";
        let odd = PathBuf::from(OsString::from_vec(b"/a\xff\n".to_vec()));
        assert_eq!(points(text).collect::<Vec<_>>(), [odd, PathBuf::from("/b")]);
    }
}
