//! `local` persistent volumes: a folder or a block device of this node (pkg/volume/local).

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::plan::Ownership;
use crate::{Error, fs as files, ownership};

/// Checks that the volume is there. The pod's group gets what is in it once for each pod: `marker` is a folder of the
/// pod's that says so.
pub(crate) fn set_up(path: &Path, block: bool, marker: &Path, owner: Option<&Ownership>) -> Result<(), Error> {
    let found = fs::metadata(path).map_err(|_| Error::LocalPath(path.into()))?;
    if block != found.file_type().is_block_device() {
        let expected = if block { "a block device" } else { "a folder" };
        return Err(Error::LocalKind { path: path.into(), expected });
    }
    if let Some(owner) = owner.filter(|_| !block && !marker.exists()) {
        ownership::apply(path, owner, false)?;
    }
    files::make_dir(marker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_gets_a_folder_once() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let (data, marker) = (folder.path().join("data"), folder.path().join("pod/marker"));
        let owner = Ownership { fs_group: Some(4711), ..Ownership::default() };
        let text = set_up(&data, false, &marker, Some(&owner)).unwrap_err().to_string();
        assert_eq!(text, format!("path {:?} does not exist", data.display().to_string()));
        fs::create_dir(&data).unwrap();
        set_up(&data, false, &marker, Some(&owner)).unwrap();
        assert_eq!(fs::metadata(&data).unwrap().gid(), 4711);
        std::os::unix::fs::chown(&data, None, Some(0)).unwrap();
        set_up(&data, false, &marker, Some(&owner)).unwrap();
        assert_eq!(fs::metadata(&data).unwrap().gid(), 0, "what the pod did since is its own");
        assert!(set_up(&data, true, &marker, None).unwrap_err().to_string().ends_with("is not a block device"));
    }
}
