//! Network namespaces: open, create and pin, delete, and run code inside one.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;

use crate::{Error, Result};

/// `NSFS_MAGIC` of linux/magic.h: what `statfs` says of a namespace file.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// An open network namespace. Cloning shares the descriptor.
#[derive(Debug, Clone)]
pub struct NetNs {
    path: Arc<Path>,
    file: Arc<File>,
}

impl NetNs {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn current() -> Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// Opens the namespace at `path` (a bind mount under /run/netns, or /proc/PID/ns/net).
    ///
    /// # Errors
    /// When the path does not exist ([`Error::is_not_found`]) or is no namespace.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| namespace_error("open", path, source))?;
        let kind = nix::sys::statfs::fstatfs(&file).map_err(|e| namespace_error("open", path, e.into()))?;
        if kind.filesystem_type().0 as i64 != NSFS_MAGIC {
            return Err(Error::NotANamespace(path.to_owned()));
        }
        Ok(Self { path: path.into(), file: Arc::new(file) })
    }

    /// Creates a namespace and pins it to `path` by a bind mount, as `ip netns add` does. The file is created.
    ///
    /// # Errors
    /// When `path` exists, or without CAP_SYS_ADMIN. Nothing is left behind.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let fail = |source| namespace_error("create", &path, source);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(fail)?;
        }
        File::create_new(&path).map_err(fail)?;
        let target = path.clone();
        // A fresh thread: unshare(2) moves only the thread that calls it, and the thread ends with its work.
        let pinned = on_thread(move || {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
            let own = Path::new("/proc/thread-self/ns/net");
            nix::mount::mount(Some(own), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            io::Result::Ok(())
        })?;
        if let Err(source) = pinned {
            // Best effort: the failure that is reported is the first one.
            let _ = fs::remove_file(&path);
            return Err(fail(source));
        }
        Self::open(path)
    }

    /// Unpins the namespace at `path` and removes the file. Succeeds when there is none. The namespace itself ends
    /// with its last user.
    ///
    /// # Errors
    /// When the mount is busy or not ours to remove.
    pub fn delete(path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        match nix::mount::umount2(path, MntFlags::MNT_DETACH) {
            // EINVAL: a plain file, left by a creation that was interrupted.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(errno) => return Err(namespace_error("delete", path, errno.into())),
        }
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(namespace_error("delete", path, e)),
            _ => Ok(()),
        }
    }

    /// The path that this namespace was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether both are the same namespace, by whatever path.
    ///
    /// # Errors
    /// When a descriptor cannot be inspected.
    pub fn is_same(&self, other: &Self) -> Result<bool> {
        let id = |ns: &Self| {
            let stat = nix::sys::stat::fstat(&*ns.file).map_err(|e| namespace_error("inspect", &ns.path, e.into()))?;
            Ok::<_, Error>((stat.st_dev, stat.st_ino))
        };
        Ok(id(self)? == id(other)?)
    }

    /// Runs `work` on a thread of its own inside this namespace and waits for it. Sockets opened by it belong to the
    /// namespace for good.
    ///
    /// # Errors
    /// When the namespace cannot be entered. What `work` returns is passed through.
    pub fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let namespace = self.clone();
        on_thread(move || {
            namespace.enter()?;
            Ok(work())
        })?
    }

    /// Runs `work` inside this namespace on the calling thread, which comes back. For programs that are done in a moment: a
    /// thread of its own waits for its turn twice, but no other part of a program must find its thread astray.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the thread not brought back.
    pub fn visit<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        let home = Self::current()?;
        self.enter()?;
        let done = work();
        home.enter()?;
        Ok(done)
    }

    fn enter(&self) -> Result<()> {
        let entered = nix::sched::setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET);
        entered.map_err(|e| namespace_error("enter", &self.path, e.into()))
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn namespace_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Namespace { action, path: PathBuf::from(path), source }
}

/// Runs `work` on a new thread, whose namespace may change without consequence for any other.
fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let thread = thread::Builder::new().name("netns".into()).spawn(work).map_err(Error::Thread)?;
    thread.join().map_err(|_| Error::Thread(io::Error::other("thread panicked")))
}
