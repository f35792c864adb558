//! Replaces the files of a folder all at once, with the layout that applications know from the kubelet
//! (pkg/volume/util/atomic_writer.go):
//!
//! ```text
//! volume/
//!   ..2026_11_21_07_18_18.123456/   the files of one generation
//!   ..data -> ..2026_11_21_07_18_18.123456
//!   key -> ..data/key
//! ```
//!
//! A reader that opens `..data` once sees one generation only, and a watcher sees one rename.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{chown, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

use crate::removal::remove_tree;
use crate::{Error, fs as files};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";
/// Upstream's limit on a payload path.
const MAX_PATH: usize = 4096;

/// A file of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owning user, where it is not root.
    pub owner: Option<u32>,
}

/// Files by their path in the volume.
pub type Payload = BTreeMap<String, File>;
/// The same, each path written as the file system has it.
type Files<'a> = BTreeMap<Cow<'a, str>, &'a File>;

/// Makes `folder` hold exactly `payload`. `finish` is called with the new generation before anyone sees it.
/// Answers whether anything changed.
///
/// # Errors
/// A path that would leave the folder, or a file that cannot be written; the old generation then stays.
pub fn write(
    folder: &Path,
    payload: &Payload,
    now: Timestamp,
    finish: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<bool, Error> {
    let payload = &clean(payload)?;
    let old = current(folder)?;
    if let Some(old) = &old
        && same(old, payload)?
    {
        // A crash may have come between the swap and the links.
        link_names(folder, payload)?;
        return Ok(false);
    }
    let new = fresh(folder, now)?;
    let written = write_files(&new, payload).and_then(|()| finish(&new)).and_then(|()| swap(folder, &new));
    if let Err(error) = written {
        let _ = remove_tree(&new);
        return Err(error);
    }
    link_names(folder, payload)?;
    remove_stale(folder, payload, &new)?;
    Ok(true)
}

/// The files by their clean paths: the API's validation passes `./a` and `a//b`, as which no folder lists them.
fn clean(payload: &Payload) -> Result<Files<'_>, Error> {
    payload.iter().map(|(path, file)| Ok((clean_path(path)?, file))).collect()
}

/// A path without empty parts and `.`. Refuses those that are absolute or lead out of the folder: they come from the API.
fn clean_path(path: &str) -> Result<Cow<'_, str>, Error> {
    let mut parts = Vec::new();
    let mut bad = path.len() > MAX_PATH || path.starts_with("..");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => parts.extend(part.to_str()),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => bad = true,
        }
    }
    // `./..data` would be the link itself, once it is clean.
    if bad || parts.first().is_none_or(|first| first.starts_with("..")) {
        return Err(Error::PayloadPath(path.to_owned()));
    }
    let clean = parts.join("/");
    Ok(if clean == path { Cow::Borrowed(path) } else { Cow::Owned(clean) })
}

/// The generation that `..data` points at; none where it points at anything else, which was not written here.
fn current(folder: &Path) -> Result<Option<PathBuf>, Error> {
    let link = folder.join(DATA);
    match fs::read_link(&link) {
        Ok(target) => {
            let is_generation = target.components().count() == 1
                && target.to_str().is_some_and(|name| name.starts_with("..") && name.len() > 2);
            let generation = folder.join(target);
            let is_folder = || fs::symlink_metadata(&generation).is_ok_and(|found| found.is_dir());
            Ok((is_generation && is_folder()).then_some(generation))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", &link)(error)),
    }
}

/// Whether a generation holds these files and no others.
fn same(generation: &Path, payload: &Files<'_>) -> Result<bool, Error> {
    let mut found = BTreeSet::new();
    collect(generation, generation, &mut found)?;
    if found.len() != payload.len() {
        return Ok(false);
    }
    for (path, file) in payload {
        if !found.contains(&**path) {
            return Ok(false);
        }
        // Looked at before it is read: what is no file of this length may be one without an end.
        let full = generation.join(&**path);
        let found = fs::symlink_metadata(&full).map_err(Error::io("stat", &full))?;
        let could_be = found.is_file() && found.len() == file.data.len() as u64;
        if !could_be || fs::read(&full).map_err(Error::io("read", &full))? != file.data {
            return Ok(false);
        }
    }
    Ok(true)
}

fn collect(top: &Path, folder: &Path, found: &mut BTreeSet<String>) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        let path = entry.path();
        if entry.file_type().map_err(Error::io("stat", &path))?.is_dir() {
            collect(top, &path, found)?;
        } else if let Ok(relative) = path.strip_prefix(top) {
            found.insert(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// A folder for a new generation, named after the time as upstream does.
fn fresh(folder: &Path, now: Timestamp) -> Result<PathBuf, Error> {
    let stamp = now.strftime("..%Y_%m_%d_%H_%M_%S");
    let nanos = now.subsec_nanosecond();
    for attempt in 0.. {
        let path = folder.join(format!("{stamp}.{}", i64::from(nanos) + attempt));
        match fs::create_dir(&path) {
            Ok(()) => {
                files::chmod(&path, 0o755)?;
                return Ok(path);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < 100 => {}
            Err(error) => return Err(Error::io("create", &path)(error)),
        }
    }
    Err(Error::PayloadPath(folder.display().to_string()))
}

fn write_files(generation: &Path, payload: &Files<'_>) -> Result<(), Error> {
    for (path, file) in payload {
        let full = generation.join(&**path);
        if let Some(parent) = full.parent() {
            files::make_dir(parent)?;
        }
        // Never through a link: the folder is new.
        let created = fs::File::create_new(&full);
        created.and_then(|mut created| created.write_all(&file.data)).map_err(Error::io("write", &full))?;
        files::chmod(&full, file.mode)?;
        if file.owner.is_some() {
            chown(&full, file.owner, None).map_err(Error::io("chown", &full))?;
        }
    }
    Ok(())
}

fn swap(folder: &Path, generation: &Path) -> Result<(), Error> {
    let temporary = folder.join(NEW_DATA);
    // Left by a crash.
    files::remove_file(&temporary)?;
    let target = generation.file_name().unwrap_or_default();
    symlink(target, &temporary).map_err(Error::io("link", &temporary))?;
    let data = folder.join(DATA);
    fs::rename(&temporary, &data).map_err(Error::io("rename", &data))
}

/// The names that a container sees: the first part of each path.
fn names<'a>(payload: &'a Files<'_>) -> BTreeSet<&'a str> {
    payload.keys().filter_map(|path| path.split('/').next()).collect()
}

/// Whether a folder has content that was written here.
pub(crate) fn is_written(folder: &Path) -> bool {
    folder.join(DATA).is_dir()
}

fn link_names(folder: &Path, payload: &Files<'_>) -> Result<(), Error> {
    for name in names(payload) {
        let link = folder.join(name);
        match symlink(Path::new(DATA).join(name), &link) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(Error::io("link", &link)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Removes links to files that are no longer in the payload, and generations that are no longer current.
fn remove_stale(folder: &Path, payload: &Files<'_>, keep: &Path) -> Result<(), Error> {
    let names = names(payload);
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let is_dir = entry.file_type().map_err(Error::io("stat", &path))?.is_dir();
        if name == DATA || path == keep || names.contains(name.as_str()) {
            continue;
        }
        if is_dir && name.starts_with("..") {
            remove_tree(&path)?;
        } else if !is_dir {
            files::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "atomic_tests.rs"]
mod tests;
