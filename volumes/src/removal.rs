//! Removing trees, never through a mount. What is mounted somewhere may be anybody's data, and can appear while the removal is
//! under way; so that each folder is opened below the one before, where the kernel refuses to cross any mount, also one of the
//! same file system.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::Error;

/// Folders that are open at a time. What lies deeper, as any pod can make it, is moved up before it is removed.
const DEPTH: usize = 32;
/// Names of a folder that are held at a time.
const BATCH: usize = 1024;

/// Removes a folder with all that is in it; one that is not there is removed. Symlinks are not followed. Blocks.
///
/// # Errors
/// A mount, before anything of what it shows is touched, or a file that cannot be removed.
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(path)(Errno::EINVAL));
    };
    let name = CString::new(name.as_bytes()).map_err(|_| failed(path)(Errno::EINVAL))?;
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let above = match File::open(above) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(Error::io("open", above))?,
    };
    let top = match open(above.as_fd(), &name) {
        Err(Errno::ENOENT) => return Ok(()),
        opened => opened.map_err(failed(path))?,
    };
    let mut folder = open(top.as_fd(), c".").and_then(Dir::from_fd).map_err(failed(path))?;
    Removal { top: top.as_fd(), moved: 0 }.empty(&mut folder, path, 1)?;
    unlink(above.as_fd(), &name, UnlinkatFlags::RemoveDir).map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(Errno) -> Error {
    move |errno| match errno {
        Errno::EXDEV | Errno::EBUSY => Error::MountPoint(path.to_owned()),
        errno => Error::errno("remove", path)(errno),
    }
}

/// A folder directly in another, on the same mount.
fn open(above: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat2(above, name, OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_XDEV))
}

/// What is not there is removed.
fn unlink(above: BorrowedFd<'_>, name: &CStr, what: UnlinkatFlags) -> Result<(), Errno> {
    match unlinkat(above, name, what) {
        Err(Errno::ENOENT) => Ok(()),
        result => result,
    }
}

struct Entry {
    name: CString,
    may_be_folder: bool,
}

/// The first entries of a folder.
fn entries(folder: &mut Dir) -> Result<Vec<Entry>, Errno> {
    let mut found = Vec::new();
    for entry in folder.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        // Some file systems do not say what an entry is.
        let may_be_folder = matches!(entry.file_type(), Some(Type::Directory) | None);
        found.push(Entry { name: name.to_owned(), may_be_folder });
        if found.len() == BATCH {
            break;
        }
    }
    Ok(found)
}

/// One removal under way.
struct Removal<'a> {
    top: BorrowedFd<'a>,
    /// Folders that were moved to the top.
    moved: u64,
}

impl Removal<'_> {
    /// Removes what is in a folder, also what is moved there meanwhile.
    fn empty(&mut self, folder: &mut Dir, path: &Path, depth: usize) -> Result<(), Error> {
        loop {
            let batch = entries(folder).map_err(failed(path))?;
            if batch.is_empty() {
                return Ok(());
            }
            for entry in batch {
                self.entry(folder.as_fd(), &entry, path, depth)?;
            }
        }
    }

    fn entry(&mut self, above: BorrowedFd<'_>, entry: &Entry, path: &Path, depth: usize) -> Result<(), Error> {
        let name = &entry.name;
        let path = path.join(OsStr::from_bytes(name.to_bytes()));
        let opened = if entry.may_be_folder { open(above, name) } else { Err(Errno::ENOTDIR) };
        match opened {
            Ok(folder) if depth < DEPTH => {
                let mut folder = Dir::from_fd(folder).map_err(failed(&path))?;
                self.empty(&mut folder, &path, depth + 1)?;
                unlink(above, name, UnlinkatFlags::RemoveDir)
            }
            Ok(_) => self.move_up(above, name),
            Err(Errno::ENOTDIR | Errno::ELOOP) => unlink(above, name, UnlinkatFlags::NoRemoveDir),
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
        .map_err(failed(&path))
    }

    /// Gives a folder another place in the one that is being emptied.
    fn move_up(&mut self, above: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            match renameat(above, name, self.top, format!(".removed-{}", self.moved).as_str()) {
                // Somebody has that name already.
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::mount::{MntFlags, MsFlags, mount, umount2};

    use super::*;

    #[test]
    fn all_kinds_of_files_and_no_links_target() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, outside) = (folder.path().join("tree"), folder.path().join("outside"));
        for path in [tree.join("a/b/c"), outside.clone()] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(outside.join("kept"), "").unwrap();
        fs::write(tree.join("a/file"), "").unwrap();
        symlink(&outside, tree.join("a/b/link")).unwrap();
        symlink("nowhere", tree.join("broken")).unwrap();
        nix::unistd::mkfifo(&tree.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for index in 0..2 * BATCH {
            fs::write(tree.join(format!("a/b/{index}")), "").unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && outside.join("kept").exists());
        remove_tree(&tree).unwrap();
        remove_tree(&tree.join("none/at/all")).unwrap();
    }

    /// Deeper than a path may be long, and than a process may have files open.
    #[test]
    fn a_deep_tree() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        // Names that the removal would use itself.
        fs::create_dir_all(tree.join(".removed-1/full")).unwrap();
        fs::write(tree.join(".removed-2"), "").unwrap();
        let mut deepest: OwnedFd = File::open(&tree).unwrap().into();
        for _ in 0..5_000 {
            nix::sys::stat::mkdirat(&deepest, "d", nix::sys::stat::Mode::S_IRWXU).unwrap();
            deepest = open(deepest.as_fd(), c"d").unwrap();
        }
        drop(deepest);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    /// As it may appear between unmounting and removing. Needs root.
    #[test]
    fn what_is_mounted_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, data) = (folder.path().join("tree"), folder.path().join("data"));
        fs::create_dir_all(tree.join("v/mounted")).unwrap();
        fs::create_dir_all(data.join("deep")).unwrap();
        fs::write(data.join("deep/file"), "precious").unwrap();
        fs::write(tree.join("one"), "").unwrap();
        let none = None::<&str>;
        let points = [(data.clone(), tree.join("v/mounted")), (data.join("deep/file"), tree.join("one"))];
        for (source, point) in &points {
            mount(Some(source), point, none, MsFlags::MS_BIND, none).unwrap();
        }
        for (_, point) in &points {
            let text = remove_tree(&tree).unwrap_err().to_string();
            let named = points.iter().any(|(_, point)| text == told(point));
            assert!(named, "{text}");
            // A mount may also be the folder itself.
            if point.is_dir() {
                assert_eq!(remove_tree(point).unwrap_err().to_string(), told(point));
            }
            assert_eq!(fs::read_to_string(data.join("deep/file")).unwrap(), "precious");
            umount2(point, MntFlags::UMOUNT_NOFOLLOW).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert_eq!(fs::read_to_string(data.join("deep/file")).unwrap(), "precious");
    }

    fn told(point: &Path) -> String {
        format!("cannot delete {}: it is a mount point", point.display())
    }
}
