//! Files of ours among those that systemd reads at boot: kernel modules to load (modules-load.d(5)) and settings (sysctl.d(5)).

use std::fs;
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
        write(&self.root.join(MODULES), &format!("{HEADER}{modules}"))?;
        write(&self.root.join(SETTINGS), &settings_text(settings.iter().copied()))
    }

    /// Writes other settings in place of those that there are, if there are some. Whether anything changed.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn renew_settings(&self, settings: &[(String, String)]) -> Result<bool, FileError> {
        let path = self.root.join(SETTINGS);
        let text = settings_text(settings.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        if !fs::read_to_string(&path).is_ok_and(|present| present != text) {
            return Ok(false);
        }
        write(&path, &text)?;
        Ok(true)
    }

    /// Removes both. Absence is not an error.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn remove(&self) -> Result<(), FileError> {
        [MODULES, SETTINGS].iter().try_for_each(|path| remove(&self.root.join(path)).map(drop))
    }
}

fn settings_text<'a>(settings: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let lines: String = settings.map(|(key, value)| format!("-{key} = {value}\n")).collect();
    format!("{HEADER}{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_removed_twice() {
        let root = std::env::temp_dir().join(format!("keelson-dropins-{}", std::process::id()));
        let dropins = DropIns::new(&root);
        dropins.write(&["overlay", "vxlan"], &[("net/ipv4/ip_forward", "1")]).unwrap();
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(read(MODULES).lines().skip(1).collect::<Vec<_>>(), ["overlay", "vxlan"]);
        assert_eq!(read(SETTINGS).lines().skip(1).collect::<Vec<_>>(), ["-net/ipv4/ip_forward = 1"]);
        let others = [("net/ipv4/ip_forward".to_owned(), "0".to_owned())];
        assert!(dropins.renew_settings(&others).unwrap() && !dropins.renew_settings(&others).unwrap());
        assert_eq!(read(SETTINGS).lines().skip(1).collect::<Vec<_>>(), ["-net/ipv4/ip_forward = 0"]);
        dropins.remove().unwrap();
        dropins.remove().unwrap();
        assert!(!dropins.renew_settings(&others).unwrap(), "nothing is renewed where nothing is");
        assert!(!root.join(MODULES).exists() && !root.join(SETTINGS).exists());
        fs::remove_dir_all(root).unwrap();
    }
}
