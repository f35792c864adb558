//! `subPath`: part of a volume, bound where no symlink of the container's making can lead it elsewhere
//! (pkg/volume/util/subpath). The kernel resolves the path beneath the volume (`openat2`), and what it found is what is
//! bound, by its descriptor.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, mkdirat};

use crate::removal::remove_tree;
use crate::{Error, fs as files};

/// Binds `volume/sub_path` to `target`; a folder is made where there is nothing. Answers `target`.
///
/// # Errors
/// A path that is empty, so that it would be the whole volume, or leaves it (`EXDEV`, or `ELOOP` through magic links), or a mount that fails.
pub fn bind(volume: &Path, sub_path: &str, target: &Path) -> Result<PathBuf, Error> {
    let named = volume.join(sub_path);
    if sub_path.is_empty() {
        return Err(Error::errno("prepare subPath", &named)(Errno::EINVAL));
    }
    let root = File::open(volume).map_err(Error::io("open", volume))?;
    let source = open_or_make(&root, sub_path).map_err(Error::errno("prepare subPath", &named))?;
    let status = fstat(&source).map_err(Error::errno("stat", &named))?;
    let directory = kind(&status) == SFlag::S_IFDIR;
    if bound(target, status.st_dev, status.st_ino) {
        return Ok(target.to_path_buf());
    }
    release(target)?;
    make_target(target, directory)?;
    mount(Some(descriptor(&source).as_str()), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(Error::errno("bind subPath to", target))?;
    Ok(target.to_path_buf())
}

/// Reads a file of a volume. Links stay within the volume, wherever they say that they lead. The file is a container's making:
/// a device or a pipe is not even opened, and no more than `limit` bytes are read.
///
/// # Errors
/// A file that is not there, no regular one, longer than that, or not text.
pub fn read(volume: &Path, path: &str, limit: u64) -> Result<String, Error> {
    let named = volume.join(path);
    let root = File::open(volume).map_err(Error::io("open", volume))?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let found = openat2(root.as_fd(), path, how).map_err(Error::errno("open", &named))?;
    if kind(&fstat(&found).map_err(Error::errno("stat", &named))?) != SFlag::S_IFREG {
        return Err(Error::NotRegular(named));
    }
    // A lease of the container's would have it wait.
    let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(descriptor(&found));
    let mut text = Vec::new();
    let length = opened.and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut text));
    if u64::try_from(length.map_err(Error::io("read", &named))?).is_ok_and(|length| length > limit) {
        return Err(Error::TooLong { path: named, limit });
    }
    String::from_utf8(text).map_err(|error| Error::io("read", &named)(io::Error::new(ErrorKind::InvalidData, error)))
}

/// The path by which a process reaches what it has opened.
fn descriptor(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn kind(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits())
}

fn how(flags: OFlag) -> OpenHow {
    OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

fn open_or_make(root: &File, sub_path: &str) -> Result<OwnedFd, Errno> {
    match openat2(root.as_fd(), sub_path, how(OFlag::O_PATH)) {
        Err(Errno::ENOENT) => make(root, sub_path),
        result => result,
    }
}

/// Makes the folders that are missing, each in the one above it that was opened safely.
fn make(root: &File, sub_path: &str) -> Result<OwnedFd, Errno> {
    let root_mode = Mode::from_bits_truncate(fstat(root)?.st_mode & 0o7777);
    let mut done = PathBuf::new();
    let mut folder = openat2(root.as_fd(), ".", how(OFlag::O_PATH | OFlag::O_DIRECTORY))?;
    for part in Path::new(sub_path).components() {
        done.push(part);
        let opened = openat2(root.as_fd(), &done, how(OFlag::O_PATH | OFlag::O_DIRECTORY));
        folder = match opened {
            Err(Errno::ENOENT) => {
                match mkdirat(&folder, part.as_os_str(), Mode::from_bits_truncate(0o700)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
                let made = openat2(root.as_fd(), &done, how(OFlag::O_RDONLY | OFlag::O_DIRECTORY))?;
                // As the volume itself: containers of any user share it (upstream does the same).
                fchmod(&made, root_mode)?;
                made
            }
            result => result?,
        };
    }
    Ok(folder)
}

/// Whether `target` already shows that very file. One that was replaced in the volume is bound anew.
fn bound(target: &Path, device: u64, inode: u64) -> bool {
    fs::metadata(target).is_ok_and(|m| m.dev() == device && m.ino() == inode)
}

fn release(target: &Path) -> Result<(), Error> {
    match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(Error::errno("unmount", target)(errno)),
    }
}

fn make_target(target: &Path, directory: bool) -> Result<(), Error> {
    let exists = match fs::symlink_metadata(target) {
        Ok(metadata) => Some(metadata.is_dir()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("stat", target)(error)),
    };
    match exists {
        Some(is_dir) if is_dir == directory => return Ok(()),
        Some(true) => remove_tree(target)?,
        Some(false) => files::remove_file(target)?,
        None => {}
    }
    if directory {
        return files::make_dir(target);
    }
    if let Some(parent) = target.parent() {
        files::make_dir(parent)?;
    }
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(target)
        .map(drop)
        .map_err(Error::io("create", target))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::{makedev, mknod};

    use super::*;

    const LIMIT: u64 = 16;

    #[test]
    fn files_are_read_from_the_volume_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("v");
        fs::create_dir_all(volume.join("etc")).unwrap();
        fs::write(folder.path().join("outside"), "secret").unwrap();
        fs::write(volume.join("etc/file"), "own").unwrap();
        symlink("/etc/file", volume.join("absolute")).unwrap();
        symlink("../../outside", volume.join("etc/away")).unwrap();
        for path in ["etc/file", "absolute", "../../../etc/file"] {
            assert_eq!(read(&volume, path, LIMIT).unwrap(), "own", "{path}");
        }
        assert!(read(&volume, "etc/away", LIMIT).is_err());
        assert!(read(&volume, "none", LIMIT).is_err());
    }

    #[test]
    fn a_path_of_nothing_is_not_the_whole_volume() {
        let folder = tempfile::tempdir().unwrap();
        let error = bind(folder.path(), "", &folder.path().join("target")).unwrap_err().to_string();
        assert!(error.starts_with("cannot prepare subPath"), "{error}");
        assert!(!folder.path().join("target").exists());
    }

    /// What a container may leave there instead of a file of variables. Needs root, to make a device.
    #[test]
    fn only_regular_files_are_read_and_only_so_far() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path();
        let all = Mode::from_bits_truncate(0o666);
        nix::unistd::mkfifo(&volume.join("pipe"), all).unwrap();
        mknod(&volume.join("zero"), SFlag::S_IFCHR, all, makedev(1, 5)).unwrap();
        fs::create_dir(volume.join("folder")).unwrap();
        symlink("zero", volume.join("link")).unwrap();
        std::os::unix::net::UnixListener::bind(volume.join("socket")).unwrap();
        for path in ["pipe", "zero", "folder", "link", "socket"] {
            let text = format!("{} is not a regular file", volume.join(path).display());
            assert_eq!(read(volume, path, LIMIT).unwrap_err().to_string(), text);
        }
        fs::write(volume.join("fits"), "a".repeat(16)).unwrap();
        assert_eq!(read(volume, "fits", LIMIT).unwrap().len(), 16);
        fs::write(volume.join("long"), "a".repeat(17)).unwrap();
        File::create(volume.join("sparse")).unwrap().set_len(1 << 36).unwrap();
        for path in ["long", "sparse"] {
            let text = format!("{} is longer than 16 bytes", volume.join(path).display());
            assert_eq!(read(volume, path, LIMIT).unwrap_err().to_string(), text);
        }
    }
}
