use std::io;
use std::path::{Path, PathBuf};

use crate::kinds::PagesError;
use crate::objects::ObjectError;

/// Why a volume's files could not be made, changed or removed. Texts that clients match on are the kubelet's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error("configmap references non-existent config key: {0}")]
    ConfigKey(String),
    #[error("references non-existent secret key: {0}")]
    SecretKey(String),
    #[error("invalid path: {0:?}")]
    PayloadPath(String),
    #[error("hostPath type check failed: {path} is not {expected}")]
    HostPathType { path: String, expected: &'static str },
    #[error("{0} is an invalid volume type")]
    HostPathUnknownType(String),
    #[error("error processing PVC {claim}: {why}")]
    Claim { claim: String, why: String },
    #[error("path {:?} does not exist", .0.display().to_string())]
    LocalPath(PathBuf),
    #[error("{} is not {expected}", path.display())]
    LocalKind { path: PathBuf, expected: &'static str },
    #[error("local: failed to mount device {} at {} (fstype: {kind}), error {why}", device.display(), target.display())]
    Device { device: PathBuf, target: PathBuf, kind: String, why: String },
    #[error("{} is not a regular file", .0.display())]
    NotRegular(PathBuf),
    #[error("{} is longer than {limit} bytes", path.display())]
    TooLong { path: PathBuf, limit: u64 },
    #[error("cannot delete {}: it is a mount point", .0.display())]
    MountPoint(PathBuf),
    #[error("no volume plugin matched: {0}")]
    Unsupported(&'static str),
    #[error(transparent)]
    Pages(#[from] PagesError),
    #[error("unknown storage medium {0:?}")]
    Medium(String),
    #[error("{0:?} is not a quantity")]
    Quantity(String),
    #[error("failed to prepare subPath for volumeMount {volume:?} of container {container:?}")]
    SubPath { volume: String, container: String },
    #[error("{} still has mounts below it: {mounts:?}", path.display())]
    StillMounted { path: PathBuf, mounts: Vec<PathBuf> },
}

impl Error {
    /// Whether it is only that the API server cannot be asked at the moment.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Object(ObjectError::Unavailable(_)))
    }

    /// What the kubelet was doing when it failed.
    fn stage(&self) -> &'static str {
        match self {
            Self::LocalPath(_) => "MountVolume.NewMounter initialization failed",
            Self::Device { .. } => "MountVolume.MountDevice failed",
            _ => "MountVolume.SetUp failed",
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.into(), source }
    }

    pub(crate) fn errno(action: &'static str, path: &Path) -> impl FnOnce(nix::Error) -> Self {
        move |errno| Self::Io { action, path: path.into(), source: errno.into() }
    }
}

/// A volume that could not be set up, worded as the kubelet's `FailedMount` event.
#[derive(Debug, thiserror::Error)]
#[error("{} for volume \"{volume}\" : {error}", error.stage())]
pub struct SetUpError {
    pub volume: String,
    pub error: Error,
}
