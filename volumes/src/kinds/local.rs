//! `local` persistent volumes: a folder or a block device of this node (pkg/volume/local). A device that is to be a file system is mounted in the
//! pod's own folder, and goes with that.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::device::{self, FileSystem};
use crate::plan::Ownership;
use crate::{Error, Layout, fs as files, ownership};

/// The plugin's name after `kubernetes.io/`.
pub(crate) const PLUGIN: &str = "local-volume";
/// The file that names the folder that a pod has.
const FOLDER: &str = "folder";

/// Held while it is found out who is the first, and while the first gives the folder to its group.
static FIRST: Mutex<()> = Mutex::new(());

/// What came of setting up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Where the volume lies, if not where it was said to.
    pub(crate) path: Option<PathBuf>,
    /// The text of an event, where the volume has another group.
    pub(crate) already_mounted: Option<String>,
}

/// How a pod has a local volume.
pub(crate) struct Usage {
    /// The PersistentVolume's name.
    pub(crate) name: String,
    pub(crate) block: bool,
    pub(crate) file_system: FileSystem,
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

    /// The local volumes of other pods.
    fn others(&self) -> impl Iterator<Item = (String, String)> {
        let pods = names(&self.layout.pods()).into_iter().filter(|uid| *uid != self.pod_uid);
        pods.flat_map(|uid| {
            let volumes = self.layout.volume(&uid, PLUGIN, "");
            names(&volumes).into_iter().map(move |volume| (uid.clone(), volume))
        })
    }

    /// Whether another pod has the folder. Pods of agents before this one never said which they have.
    fn is_shared(&self, folder: &Path) -> bool {
        self.others().any(|(uid, volume)| {
            let said = fs::read(self.layout.plugin(&uid, PLUGIN, &volume).join(FOLDER));
            said.is_ok_and(|said| said == folder.as_os_str().as_bytes())
        })
    }

    /// Mounts a device in the pod's folder, unless it is. Where another pod has it, both have the same mount: the first says whether it is
    /// read-only. Answers whether it was mounted now.
    fn mount(&self, device: &Path, number: u64) -> Result<bool, Error> {
        let target = self.marker();
        files::make_dir(&target)?;
        if files::on_other_device(&target)? {
            return Ok(false);
        }
        let has = |place: &PathBuf| fs::metadata(place).is_ok_and(|found| found.dev() == number);
        let other = self.others().map(|(uid, volume)| self.layout.volume(&uid, PLUGIN, &volume)).find(has);
        let done = match other {
            Some(other) => device::bind(&other, &target),
            None => self.file_system.mount(device, &target, self.read_only),
        };
        done.map_err(|why| {
            let kind = self.file_system.kind().to_owned();
            Error::Device { device: device.into(), target: target.clone(), kind, why }
        })?;
        Ok(true)
    }

    fn kept(&self) -> PathBuf {
        self.layout.plugin(&self.pod_uid, PLUGIN, &self.volume)
    }

    fn has_said(&self) -> bool {
        self.kept().join(FOLDER).exists()
    }

    /// Says that this pod has the folder, for the others.
    fn say(&self, folder: &Path) -> Result<(), Error> {
        let kept = self.kept();
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

/// Checks that the volume is there, and mounts a device. The first pod's group gets what is in it, once: of a folder that others have the owner stays
/// (`SetUpAt` in local.go). Answers what the pod's user is to know of that.
pub(crate) fn set_up(path: &Path, usage: &Usage, owner: &Ownership) -> Result<Placed, Error> {
    let found = fs::metadata(path).map_err(|_| Error::LocalPath(path.into()))?;
    let is_device = found.file_type().is_block_device();
    if !is_device && (usage.block || !found.is_dir()) {
        let expected = if usage.block { "a block device" } else { "a folder or a block device" };
        return Err(Error::LocalKind { path: path.into(), expected });
    }
    let marker = usage.marker();
    if usage.block {
        return files::make_dir(&marker).map(|()| Placed::default());
    }
    let folder = fs::canonicalize(path).map_err(Error::io("resolve", path))?;
    // Two pods that begin at once: one is the first.
    let _guard = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    let (place, is_new) = if is_device {
        // Mounted by an agent that came no further, or before the machine's last start: the group is given again.
        (marker.as_path(), usage.mount(&folder, found.rdev())? || !usage.has_said())
    } else {
        (path, !marker.exists())
    };
    let already_mounted = if is_new { give(place, &folder, usage, owner)? } else { None };
    usage.say(&folder)?;
    files::make_dir(&marker)?;
    Ok(Placed { path: is_device.then_some(marker), already_mounted })
}

/// Gives what lies at `place` to the pod's group, if no other pod has the volume.
fn give(place: &Path, folder: &Path, usage: &Usage, owner: &Ownership) -> Result<Option<String>, Error> {
    if usage.is_shared(folder) {
        let gid = fs::metadata(place).map_err(Error::io("stat", place))?.gid();
        let other = owner.fs_group.filter(|group| *group != gid);
        return Ok(other.map(|group| {
            let name = &usage.name;
            format!("The requested fsGroup is {group}, but the volume {name} has GID {gid}. The volume may not be shareable.")
        }));
    }
    if !usage.read_only {
        ownership::apply(place, owner, false)?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(root: &Path, pod: &str) -> Usage {
        Usage {
            name: "pv".into(),
            block: false,
            file_system: FileSystem::default(),
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
        assert_eq!(set_up(&data, &first, &group(4711)).unwrap().already_mounted, None);
        let linked = folder.path().join("linked");
        std::os::unix::fs::symlink(&data, &linked).unwrap();
        let text = "The requested fsGroup is 4712, but the volume pv has GID 4711. The volume may not be shareable.";
        assert_eq!(set_up(&linked, &second, &group(4712)).unwrap().already_mounted.as_deref(), Some(text));
        assert_eq!(set_up(&linked, &second, &group(4712)).unwrap().already_mounted, None, "said once");
        assert_eq!(set_up(&data, &third, &group(4711)).unwrap().already_mounted, None);
        assert_eq!(fs::metadata(&data).unwrap().gid(), 4711);
        // Nobody else's any more.
        for gone in [first, second, third] {
            fs::remove_dir_all(gone.layout.pod(&gone.pod_uid)).unwrap();
        }
        set_up(&data, &usage(folder.path(), "d"), &group(4712)).unwrap();
        assert_eq!(fs::metadata(&data).unwrap().gid(), 4712);
    }
}
