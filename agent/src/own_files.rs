//! What in the agent's folders is its own. The administrator chooses these folders, and may have more in them: joining takes a data folder
//! only where there is nothing of anybody else's in it, and leaving removes nothing else.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::config::Layout;

/// What is written below the data folder: who writes more adds it here.
const DATA: [&str; 12] = [
    "pods",
    "cni",
    "image_manager",
    "upgrade",
    FORMAT,
    "sysctls-before.json",
    "graceful_node_shutdown_state",
    "sandbox-seccomp.json",
    "services.json",
    "services.new",
    "cni-folders.json",
    "pause-images.json",
];
/// Says that a folder is an agent's.
const FORMAT: &str = "format.json";
/// The same below the run folder.
const RUN: [&str; 1] = ["agent.sock"];
/// And in the folder of configuration, but for `pki`.
pub(crate) const CONFIG: [&str; 3] = ["agent.yaml", "node.yaml", "kubeconfig"];
/// What administrators put into a data folder for the agent to read, and what file systems have: neither is in the way, nor removed.
const GIVEN: [&str; 4] = ["seccomp", "config.json", ".dockercfg", "lost+found"];

/// An entry by which a folder cannot be taken for data: somebody else's.
///
/// # Errors
/// A folder that is there and cannot be read.
pub(crate) fn stranger(data_dir: &Path) -> io::Result<Option<String>> {
    if data_dir.join(FORMAT).exists() {
        return Ok(None);
    }
    let known = |name: &str| GIVEN.contains(&name) || is_own(name, &DATA);
    Ok(names(data_dir)?.into_iter().find(|name| !known(name)))
}

/// The folders that have something of an agent's, or nothing at all, although they are no mount points.
pub(crate) fn left(layout: &Layout) -> Vec<PathBuf> {
    let Layout { config_dir, data_dir, run_dir } = layout;
    let all = [
        (config_dir, is_left(config_dir, &CONFIG) || layout.pki_dir().exists()),
        (data_dir, is_left(data_dir, &DATA)),
        (run_dir, is_left(run_dir, &RUN)),
    ];
    all.into_iter().filter(|(_, left)| *left).map(|(folder, _)| folder.clone()).collect()
}

fn is_left(folder: &Path, own: &[&str]) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|about| about.dev());
    let is_plain = folder.parent().is_none_or(|above| device(above) == device(folder));
    match names(folder) {
        Ok(names) if names.is_empty() => is_plain && folder.is_dir(),
        Ok(names) => names.iter().any(|name| is_own(name, own)),
        Err(_) => false,
    }
}

/// Whether an agent has run with this data folder.
pub(crate) fn has_run(data_dir: &Path) -> bool {
    [FORMAT, "pods"].iter().any(|name| data_dir.join(name).exists())
}

/// Removes the agent's data, and the folder where nothing else is in it. Blocks.
pub(crate) fn remove_data(folder: &Path) -> Vec<String> {
    remove(folder, &DATA)
}

/// Likewise the state that a reboot ends.
pub(crate) fn remove_run(folder: &Path) -> Vec<String> {
    remove(folder, &RUN)
}

/// Removes what writes of files that were cut short have left.
pub(crate) fn remove_unfinished(folder: &Path, files: &[&str]) -> Vec<String> {
    systemd::unfinished(folder, files).iter().filter_map(|path| remove_entry(path).err()).collect()
}

/// Removes a file or a folder with all that is in it, up to what is mounted there; one that is gone is removed.
///
/// # Errors
/// What cannot be removed, and why.
pub(crate) fn remove_entry(path: &Path) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let is_folder = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|error| failed(&error))?.is_dir(),
    };
    if !is_folder {
        return fs::remove_file(path).map_err(|error| failed(&error));
    }
    match volumes::remove_tree(path) {
        // A file system for this very folder: it goes on being mounted, empty.
        Err(volumes::Error::MountPoint(point)) if point == path => {
            let inside = names(path).map_err(|error| failed(&error))?;
            inside.iter().filter(|name| *name != "lost+found").try_for_each(|name| remove_entry(&path.join(name)))
        }
        removed => removed.map_err(|error| error.to_string()),
    }
}

fn remove(folder: &Path, own: &[&str]) -> Vec<String> {
    let found = match names(folder) {
        Ok(found) => found,
        Err(error) => return vec![format!("{}: {error}", folder.display())],
    };
    let ours = found.iter().filter(|name| is_own(name, own));
    let failures: Vec<String> = ours.filter_map(|name| remove_entry(&folder.join(name)).err()).collect();
    // It stays where something of somebody else's is in it, or where it is a mount point.
    let _ = fs::remove_dir(folder);
    failures
}

/// None where there is no folder.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(OsStr::to_string_lossy(&entry?.file_name()).into_owned())).collect()
}

fn is_own(name: &str, own: &[&str]) -> bool {
    own.contains(&name) || systemd::is_unfinished(name, own)
}

#[cfg(test)]
mod tests {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};

    use super::*;

    fn make(folder: &Path, files: &[&str]) {
        for file in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    #[test]
    fn only_what_is_ours_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let ours =
            ["format.json", "pods/u/volumes/x/file", "cni/keelson/10.0.0.1", "services.new", ".format.json.7.tmp"];
        let theirs = ["seccomp/profile.json", "precious/file", ".format.json.x.tmp", ".other.7.tmp"];
        make(&data, &ours);
        make(&data, &theirs);
        let is_left = || left(&Layout::new(dir.path().join("etc"), &data, dir.path().join("run"))) == [data.clone()];
        assert!(is_left() && has_run(&data));
        assert_eq!(remove_data(&data), Vec::<String>::new());
        assert!(ours.iter().all(|name| !data.join(name.split('/').next().unwrap()).exists()));
        assert!(theirs.iter().all(|name| data.join(name).exists()));
        assert!(!is_left() && !has_run(&data));
        fs::remove_dir_all(&data).unwrap();
        make(&data, &ours);
        assert_eq!(remove_data(&data), Vec::<String>::new());
        assert!(!data.exists() && !is_left());
        fs::create_dir(&data).unwrap();
        assert!(is_left(), "an empty one that nobody mounted");
        assert_eq!(remove_run(&dir.path().join("none")), Vec::<String>::new());
        make(dir.path(), &[".node.yaml.12.tmp", "node.yaml", ".mine.1.tmp"]);
        assert_eq!(remove_unfinished(dir.path(), &CONFIG), Vec::<String>::new());
        let mut left = names(dir.path()).unwrap();
        left.sort();
        assert_eq!(left, [".mine.1.tmp", "data", "node.yaml"]);
    }

    #[test]
    fn a_folder_with_something_of_somebody_elses_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let found = || stranger(dir.path()).unwrap();
        assert_eq!(stranger(&dir.path().join("none")).unwrap(), None);
        // A file system of its own, prepared by the administrator; then a join that was cut short.
        make(dir.path(), &["lost+found/x", "seccomp/profile.json", "config.json"]);
        assert_eq!(found(), None);
        make(dir.path(), &["sysctls-before.json", ".format.json.7.tmp"]);
        assert_eq!(found(), None);
        make(dir.path(), &["backups/monday"]);
        assert_eq!(found().as_deref(), Some("backups"));
        // It was ours before the other came.
        make(dir.path(), &["format.json"]);
        assert_eq!(found(), None);
    }

    /// Needs root.
    #[test]
    fn a_mount_point_stays_and_what_is_ours_in_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let tmpfs = |path: &Path| {
            fs::create_dir_all(path).unwrap();
            mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        };
        tmpfs(&data);
        tmpfs(&data.join("pods"));
        make(&data, &["format.json", "pods/u/pod.json", "lost+found/x"]);
        assert_eq!(remove_data(&data), Vec::<String>::new());
        let mut left = names(&data).unwrap();
        left.sort();
        assert_eq!(left, ["lost+found", "pods"]);
        assert!(names(&data.join("pods")).unwrap().is_empty() && !is_left(&data.join("pods"), &DATA));
        // What somebody has mounted deeper is nobody's to remove.
        make(&data, &["pods/u/other/x"]);
        tmpfs(&data.join("pods/u/other"));
        make(&data, &["pods/u/other/precious"]);
        let failures = remove_data(&data);
        assert!(failures.len() == 1 && failures[0].contains("pods/u/other: it is a mount point"), "{failures:?}");
        assert!(data.join("pods/u/other/precious").exists());
        for point in ["pods/u/other", "pods", ""] {
            umount2(&data.join(point), MntFlags::UMOUNT_NOFOLLOW).unwrap();
        }
    }
}
