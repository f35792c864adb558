//! Files of ours among those that systemd reads at boot: kernel modules to load (modules-load.d(5)) and settings (sysctl.d(5)).

use std::path::PathBuf;

use crate::files::{FileError, remove, write};

const MODULES: &str = "etc/modules-load.d/keelson.conf";
/// After the distribution's and most administrators' files: a node without forwarding is none.
const SETTINGS: &str = "etc/sysctl.d/90-keelson.conf";
const HEADER: &str = "# Written by `agent join`, removed by `agent leave`.\n";

/// The drop-ins of one machine.
#[derive(Debug, Clone)]
pub struct DropIns {
    root: PathBuf,
}

impl Default for DropIns {
    fn default() -> Self {
        Self::new("/")
    }
}

impl DropIns {
    /// Those below `root`, `/` but in tests.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Writes both. Settings are paths below `/proc/sys` and their values; one that this kernel does not have is no failure at boot.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, modules: &[&str], settings: &[(&str, &str)]) -> Result<(), FileError> {
        let modules: String = modules.iter().map(|module| format!("{module}\n")).collect();
        let settings: String = settings.iter().map(|(key, value)| format!("-{key} = {value}\n")).collect();
        for (path, text) in [(MODULES, modules), (SETTINGS, settings)] {
            write(&self.root.join(path), &format!("{HEADER}{text}"))?;
        }
        Ok(())
    }

    /// Removes both. Absence is not an error.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn remove(&self) -> Result<(), FileError> {
        [MODULES, SETTINGS].iter().try_for_each(|path| remove(&self.root.join(path)).map(drop))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_written_can_be_removed_twice() {
        let root = std::env::temp_dir().join(format!("keelson-dropins-{}", std::process::id()));
        let dropins = DropIns::new(&root);
        dropins.write(&["overlay", "vxlan"], &[("net/ipv4/ip_forward", "1")]).unwrap();
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(read(MODULES).lines().skip(1).collect::<Vec<_>>(), ["overlay", "vxlan"]);
        assert_eq!(read(SETTINGS).lines().skip(1).collect::<Vec<_>>(), ["-net/ipv4/ip_forward = 1"]);
        dropins.remove().unwrap();
        dropins.remove().unwrap();
        assert!(!root.join(MODULES).exists() && !root.join(SETTINGS).exists());
        fs::remove_dir_all(root).unwrap();
    }
}
