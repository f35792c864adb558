use std::io;
use std::path::PathBuf;

/// What can go wrong with a cgroup, always with the path it went wrong at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot create cgroup {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot write {value:?} to {}", path.display())]
    Write { path: PathBuf, value: String, source: io::Error },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} holds {content:?}, which is not understood", path.display())]
    Format { path: PathBuf, content: String },
    #[error("cannot remove cgroup {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("cgroup {} still has processes {pids:?} after SIGKILL", path.display())]
    Busy { path: PathBuf, pids: Vec<i32> },
    #[error("no cgroup hierarchy is mounted below {}", path.display())]
    NotMounted { path: PathBuf },
    #[error("cgroup controllers {missing:?} are not available")]
    MissingControllers { missing: Vec<&'static str> },
    #[error("cgroup {name} has some missing paths: {}", paths.join(", "))]
    MissingPaths { name: String, paths: Vec<String> },
    #[error("cgroup {name} has some missing controllers: {}", missing.join(", "))]
    LacksControllers { name: String, missing: Vec<&'static str> },
    #[error("could not read controllers for cgroup {name}")]
    Controllers { name: String, source: io::Error },
    #[error("the cgroup driver systemd needs cgroup v2: set cgroupfs in the runtime's configuration")]
    SystemdOnV1,
    #[error("cgroup {name} as a slice of systemd's")]
    Slice { name: String, source: systemd::slices::SliceError },
}

impl Error {
    /// The cgroup is not there, or went away while it was read.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let Self::Read { source, .. } = self else { return false };
        source.kind() == io::ErrorKind::NotFound || source.raw_os_error() == Some(nix::libc::ENODEV)
    }
}
