//! What an upgrade falls back on: the programs that last proved themselves on this node.
//!
//! They are those that an upgrade found, unless the one before it did not come to its end (`pending`): what it left in their places may be what
//! was never Ready.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::UpgradeError;
use super::programs::{Programs, file, remove};
use crate::config::write_atomic;

pub(super) struct Fallback {
    folder: PathBuf,
}

impl Fallback {
    /// Below the folder of upgrades.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// What there is to go back to.
    pub fn programs(&self) -> Programs {
        Programs::kept(&self.kept())
    }

    /// Before `staged`, of that version, takes the places of `present`.
    pub fn begin(&self, present: &Programs, staged: &Programs, version: &str) -> Result<(), UpgradeError> {
        let pending = self.pending();
        // What is there already, a package's for instance, is no way back from itself, if there is another.
        let is_new = !present.has_same(staged) || !self.programs().agent.exists();
        if is_new && !pending.exists() {
            present.keep(&self.kept())?;
        }
        fs::create_dir_all(&self.folder).map_err(file(&self.folder))?;
        write_atomic(&pending, version.as_bytes(), 0o644).map_err(file(&pending))?;
        // So that the rename that follows is not on the disk without it.
        fs::File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(file(&self.folder))
    }

    /// The upgrade has come to its end, or what was before runs again.
    pub fn settled(&self) -> Result<(), UpgradeError> {
        remove(&self.pending())
    }

    /// The version of an upgrade that did not come to its end.
    pub fn unfinished(&self) -> Option<String> {
        match fs::read_to_string(self.pending()) {
            Ok(version) => Some(version),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => Some("an unknown version".into()),
        }
    }

    fn pending(&self) -> PathBuf {
        self.folder.join("pending")
    }

    fn kept(&self) -> PathBuf {
        self.folder.join("previous")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine {
        root: tempfile::TempDir,
        fallback: Fallback,
        present: Programs,
    }

    impl Machine {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let (bin, fallback) = (root.path().join("bin"), Fallback::new(&root.path().join("upgrade")));
            fs::create_dir(&bin).unwrap();
            fs::write(bin.join("agent"), "good").unwrap();
            Self { present: Programs::of_file(&bin.join("agent")), fallback, root }
        }

        /// An upgrade as far as to where it is killed, or to its end.
        fn upgrade(&self, text: &str, to_its_end: bool) {
            let file = self.root.path().join("new");
            fs::write(&file, text).unwrap();
            let staged = Programs::of_file(&file).stage(&self.present).unwrap();
            self.fallback.begin(&self.present, &staged, text).unwrap();
            staged.replace(&self.present).unwrap();
            if to_its_end {
                self.fallback.settled().unwrap();
            }
        }

        fn kept(&self) -> String {
            fs::read_to_string(self.fallback.programs().agent).unwrap()
        }
    }

    #[test]
    fn an_upgrade_that_was_cut_short_is_no_way_back() {
        let machine = Machine::new();
        machine.upgrade("bad", false);
        assert_eq!((machine.kept().as_str(), machine.fallback.unfinished().as_deref()), ("good", Some("bad")));
        // It can be run again, also with another.
        machine.upgrade("bad", false);
        assert_eq!(machine.kept(), "good");
        machine.upgrade("better", true);
        assert_eq!((machine.kept().as_str(), machine.fallback.unfinished()), ("good", None));
        machine.upgrade("best", true);
        assert_eq!(machine.kept(), "better");
    }

    #[test]
    fn what_is_there_already_is_not_kept_once_more() {
        let machine = Machine::new();
        machine.upgrade("new", true);
        machine.upgrade("new", true);
        assert_eq!(machine.kept(), "good");
    }
}
