//! `local` persistent volumes: a folder or a block device of this node (pkg/volume/local).

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::plan::Ownership;
use crate::{Error, Layout, fs as files, ownership};

/// The plugin's name after `kubernetes.io/`.
pub(crate) const PLUGIN: &str = "local-volume";
/// The file that names the folder that a pod has.
const FOLDER: &str = "folder";

/// Held while it is found out who is the first, and while the first gives the folder to its group.
static FIRST: Mutex<()> = Mutex::new(());

/// How a pod has a local volume.
pub(crate) struct Usage {
    /// The PersistentVolume's name.
    pub(crate) name: String,
    pub(crate) block: bool,
    pub(crate) read_only: bool,
    pub(crate) layout: Layout,
    pub(crate) pod_uid: String,
    /// The name of the volume in the pod.
    pub(crate) volume: String,
}

impl Usage {
    /// A folder that says that the volume is set up.
    fn marker(&self) -> PathBuf {
        self.layout.volume(&self.pod_uid, PLUGIN, &self.volume)
    }

    /// Whether another pod has the folder. Pods of agents before this one never said which they have.
    fn is_shared(&self, folder: &Path) -> bool {
        let pods = names(&self.layout.pods()).into_iter().filter(|uid| *uid != self.pod_uid);
        pods.flat_map(|uid| {
            let volumes = self.layout.volume(&uid, PLUGIN, "");
            names(&volumes).into_iter().map(move |volume| (uid.clone(), volume))
        })
        .any(|(uid, volume)| {
            let said = fs::read(self.layout.plugin(&uid, PLUGIN, &volume).join(FOLDER));
            said.is_ok_and(|said| said == folder.as_os_str().as_bytes())
        })
    }

    /// Says that this pod has the folder, for the others.
    fn say(&self, folder: &Path) -> Result<(), Error> {
        let kept = self.layout.plugin(&self.pod_uid, PLUGIN, &self.volume);
        files::make_dir(&kept)?;
        let path = kept.join(FOLDER);
        fs::write(&path, folder.as_os_str().as_bytes()).map_err(Error::io("write", &path))
    }
}

/// What is in a folder; nothing in one that is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Checks that the volume is there. The first pod's group gets what is in it, once: of a folder that others have the owner stays
/// (`SetUpAt` in local.go). Answers what the pod's user is to know of that.
pub(crate) fn set_up(path: &Path, usage: &Usage, owner: &Ownership) -> Result<Option<String>, Error> {
    let found = fs::metadata(path).map_err(|_| Error::LocalPath(path.into()))?;
    if usage.block != found.file_type().is_block_device() {
        let expected = if usage.block { "a block device" } else { "a folder" };
        return Err(Error::LocalKind { path: path.into(), expected });
    }
    let marker = usage.marker();
    if usage.block {
        return files::make_dir(&marker).map(|()| None);
    }
    let folder = fs::canonicalize(path).map_err(Error::io("resolve", path))?;
    let mut warning = None;
    // Two pods that begin at once: one is the first.
    let _guard = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    if !marker.exists() {
        if usage.is_shared(&folder) {
            warning = owner.fs_group.filter(|group| *group != found.gid()).map(|group| {
                format!(
                    "The requested fsGroup is {group}, but the volume {} has GID {}. The volume may not be shareable.",
                    usage.name,
                    found.gid()
                )
            });
        } else if !usage.read_only {
            ownership::apply(path, owner, false)?;
        }
    }
    usage.say(&folder)?;
    files::make_dir(&marker)?;
    Ok(warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(root: &Path, pod: &str) -> Usage {
        Usage {
            name: "pv".into(),
            block: false,
            read_only: false,
            layout: Layout::new(root),
            pod_uid: pod.into(),
            volume: "v".into(),
        }
    }

    fn group(fs_group: u32) -> Ownership {
        Ownership { fs_group: Some(fs_group), ..Ownership::default() }
    }

    #[test]
    fn the_group_gets_a_folder_once() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let (usage, owner) = (usage(folder.path(), "p"), group(4711));
        let text = set_up(&data, &usage, &owner).unwrap_err().to_string();
        assert_eq!(text, format!("path {:?} does not exist", data.display().to_string()));
        fs::create_dir(&data).unwrap();
        set_up(&data, &usage, &owner).unwrap();
        assert_eq!(fs::metadata(&data).unwrap().gid(), 4711);
        std::os::unix::fs::chown(&data, None, Some(0)).unwrap();
        set_up(&data, &usage, &owner).unwrap();
        assert_eq!(fs::metadata(&data).unwrap().gid(), 0, "what the pod did since is its own");
        let block = Usage { block: true, ..usage };
        assert!(set_up(&data, &block, &owner).unwrap_err().to_string().ends_with("is not a block device"));
    }

    #[test]
    fn a_folder_that_another_pod_has_keeps_its_group() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let [first, second, third] = ["a", "b", "c"].map(|pod| usage(folder.path(), pod));
        assert_eq!(set_up(&data, &first, &group(4711)).unwrap(), None);
        let linked = folder.path().join("linked");
        std::os::unix::fs::symlink(&data, &linked).unwrap();
        let text = "The requested fsGroup is 4712, but the volume pv has GID 4711. The volume may not be shareable.";
        assert_eq!(set_up(&linked, &second, &group(4712)).unwrap().as_deref(), Some(text));
        assert_eq!(set_up(&linked, &second, &group(4712)).unwrap(), None, "said once");
        assert_eq!(set_up(&data, &third, &group(4711)).unwrap(), None);
        assert_eq!(fs::metadata(&data).unwrap().gid(), 4711);
        // Nobody else's any more.
        for gone in [first, second, third] {
            fs::remove_dir_all(gone.layout.pod(&gone.pod_uid)).unwrap();
        }
        set_up(&data, &usage(folder.path(), "d"), &group(4712)).unwrap();
        assert_eq!(fs::metadata(&data).unwrap().gid(), 4712);
    }
}
