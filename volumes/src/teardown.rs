//! Removes what a pod has on the node, and finds what pods left behind.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::removal::remove_tree;
use crate::{Error, Layout, mounts};

/// Unmounts and removes a pod's folder; one that is not there is removed. Blocks.
///
/// # Errors
/// When a mount stays: nothing is then removed, for what is mounted may be someone's data.
pub fn tear_down(layout: &Layout, uid: &str) -> Result<(), Error> {
    let folder = layout.pod(uid);
    if !folder.exists() {
        return Ok(());
    }
    mounts::unmount_below(&folder)?;
    let left = mounts::below(&folder)?;
    if !left.is_empty() {
        return Err(Error::StillMounted { path: folder, mounts: left });
    }
    remove_tree(&folder)
}

/// UIDs of the pods that have a folder. Blocks.
///
/// # Errors
/// When the folder of all pods cannot be read.
pub fn existing(layout: &Layout) -> Result<Vec<String>, Error> {
    let folder = layout.pods();
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", &folder)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("read", &folder))?;
        if is_dir(&entry.path()) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// What is mounted in folders of pods, with the UIDs of these. Blocks.
///
/// # Errors
/// When it cannot be read what is mounted.
pub fn mounted(layout: &Layout) -> Result<Vec<(String, PathBuf)>, Error> {
    // As the kernel names it.
    let folder = fs::canonicalize(layout.pods()).unwrap_or_else(|_| layout.pods());
    let of_pod = |point: PathBuf| {
        let uid = point.strip_prefix(&folder).ok()?.iter().next()?.to_string_lossy().into_owned();
        Some((uid, point))
    };
    Ok(mounts::below(&folder)?.into_iter().filter_map(of_pod).collect())
}

fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.is_dir())
}
