//! What a pod was given and what of it is in force, in its folder: a resize must not be forgotten by a restart of the
//! agent (`pkg/kubelet/allocation/state`). A pod that was never resized has none: its containers tell what they were
//! created with.

use std::io;
use std::path::PathBuf;

use pod::{Actuated, Allocation};
use serde::{Deserialize, Serialize};
use volumes::Layout;

use super::checkpoint::{read_versioned, write_versioned};

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub given: Allocation,
    pub actuated: Actuated,
}

impl Record {
    /// Writes it. Blocks.
    ///
    /// # Errors
    /// What the filesystem said.
    pub fn write(&self, layout: &Layout, uid: &str) -> io::Result<()> {
        std::fs::create_dir_all(layout.pod(uid))?;
        write_versioned(&path(layout, uid), self)
    }

    /// Reads it. One that is not understood is as good as none. Blocks.
    #[must_use]
    pub fn read(layout: &Layout, uid: &str) -> Option<Self> {
        read_versioned(&path(layout, uid))
    }
}

fn path(layout: &Layout, uid: &str) -> PathBuf {
    layout.pod(uid).join("resources.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        assert_eq!(Record::read(&layout, "u"), None);
        let pod = serde_json::from_value(serde_json::json!({"metadata": {"generation": 3}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "100m"}}}]}}));
        let given = Allocation::of(&pod.unwrap());
        let actuated = Actuated { cgroup: Some(given.clone()), ..Actuated::default() };
        let record = Record { given, actuated };
        record.write(&layout, "u").unwrap();
        assert_eq!(Record::read(&layout, "u"), Some(record));
    }
}
