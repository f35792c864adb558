//! `emptyDir`: a folder, or a tmpfs, that lives as long as the pod (pkg/volume/emptydir).

use std::path::Path;

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;

use super::{Kind, Medium};
use crate::{Error, fs, mounts};

/// Everyone may use the scratch space of a pod.
const MODE: u32 = 0o777;

pub(super) fn of(source: Option<&EmptyDirVolumeSource>) -> Kind {
    let medium = match source.and_then(|s| s.medium.as_deref()).unwrap_or_default() {
        "" => Medium::Disk,
        "Memory" => Medium::Memory,
        other => Medium::Unknown(other.to_owned()),
    };
    Kind::EmptyDir { medium, size_limit: source.and_then(|s| s.size_limit.as_ref()).map(|q| q.0.clone()) }
}

/// Makes the folder. What is in it already stays. `max` caps a tmpfs whose own limit is higher or unset.
pub(crate) fn set_up(folder: &Path, medium: &Medium, limit: Option<u64>, max: Option<u64>) -> Result<(), Error> {
    fs::make_dir(folder)?;
    match medium {
        Medium::Disk => {}
        Medium::Memory => mounts::tmpfs(folder, limit.into_iter().chain(max).min())?,
        Medium::Unknown(name) => return Err(Error::Medium(name.clone())),
    }
    fs::allow(folder, MODE)
}
