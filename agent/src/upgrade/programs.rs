//! The files of an upgrade: staged beside those that they replace, which are kept.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::UpgradeError;
use crate::commands::run;

/// Agent and CNI plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    pub agent: PathBuf,
    /// Absent where they do not come with the agent.
    pub plugins: Option<PathBuf>,
}

/// Where a package has them.
const PACKAGED: (&str, &str) = ("usr/bin/agent", "usr/lib/keelson/keelson-cni");
const PLUGINS: &str = "keelson-cni";

impl Programs {
    /// A program, with the plugins beside it where there are some.
    pub fn of_file(agent: &Path) -> Self {
        let plugins = agent.with_file_name(PLUGINS);
        Self { agent: agent.to_owned(), plugins: plugins.is_file().then_some(plugins) }
    }

    /// Those of a Debian package, unpacked into `dir`.
    pub fn of_package(package: &Path, dir: &Path) -> Result<Self, UpgradeError> {
        run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(dir))?;
        let plugins = dir.join(PACKAGED.1);
        Ok(Self { agent: dir.join(PACKAGED.0), plugins: plugins.is_file().then_some(plugins) })
    }

    /// Those that the last upgrade replaced.
    pub fn kept(dir: &Path) -> Self {
        Self::of_file(&dir.join("agent"))
    }

    /// Copies into `dir`, where [`Self::kept`] finds them.
    pub fn keep(&self, dir: &Path) -> Result<(), UpgradeError> {
        fs::create_dir_all(dir).map_err(file(dir))?;
        copy(&self.agent, &dir.join("agent"))?;
        let plugins = dir.join(PLUGINS);
        match &self.plugins {
            Some(from) => copy(from, &plugins),
            None => remove(&plugins),
        }
    }

    /// Copies to hidden files beside `present`, from where they can be run and are one rename away.
    pub fn stage(&self, present: &Self) -> Result<Self, UpgradeError> {
        let agent = staged(&present.agent);
        copy(&self.agent, &agent)?;
        let plugins = match (&self.plugins, &present.plugins) {
            (Some(from), Some(at)) => {
                copy(from, &staged(at))?;
                Some(staged(at))
            }
            _ => None,
        };
        Ok(Self { agent, plugins })
    }

    /// Puts staged files in the places of `present`. A program that runs keeps its own file.
    pub fn replace(&self, present: &Self) -> Result<(), UpgradeError> {
        if let (Some(from), Some(to)) = (&self.plugins, &present.plugins) {
            fs::rename(from, to).map_err(file(to))?;
        }
        fs::rename(&self.agent, &present.agent).map_err(file(&present.agent))
    }

    /// Removes what was staged.
    pub fn discard(&self) -> Result<(), UpgradeError> {
        self.plugins.iter().chain([&self.agent]).try_for_each(|path| remove(path))
    }
}

fn staged(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> UpgradeError {
    let path = path.to_owned();
    move |source| UpgradeError::File { path, source }
}

/// A program, whole or not at all, and on the disk before anything depends on it.
fn copy(from: &Path, to: &Path) -> Result<(), UpgradeError> {
    let partial = to.with_extension("partial");
    let copied = (|| {
        fs::copy(from, &partial)?;
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))?;
        fs::File::open(&partial)?.sync_all()?;
        fs::rename(&partial, to)
    })();
    if copied.is_err() {
        // The copy's own error is the one to tell.
        let _ = fs::remove_file(&partial);
    }
    copied.map_err(file(from))
}

fn remove(path: &Path) -> Result<(), UpgradeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, names: &[(&str, &str)]) {
        fs::create_dir_all(dir).unwrap();
        names.iter().for_each(|(name, text)| fs::write(dir.join(name), text).unwrap());
    }

    #[test]
    fn what_is_replaced_can_be_put_back() {
        let root = tempfile::tempdir().unwrap();
        let (bin, new, kept) = (root.path().join("bin"), root.path().join("new"), root.path().join("kept"));
        write(&bin, &[("agent", "old"), (PLUGINS, "old plugins")]);
        write(&new, &[("agent-2", "new"), (PLUGINS, "new plugins")]);
        let present = Programs::of_file(&bin.join("agent"));
        let read = |name: &str| fs::read_to_string(bin.join(name)).unwrap();

        present.keep(&kept).unwrap();
        let staged = Programs::of_file(&new.join("agent-2")).stage(&present).unwrap();
        assert_eq!((read("agent"), read(".agent.new")), ("old".into(), "new".into()));
        assert_eq!(fs::metadata(&staged.agent).unwrap().permissions().mode() & 0o777, 0o755);
        staged.replace(&present).unwrap();
        assert_eq!((read("agent"), read(PLUGINS)), ("new".into(), "new plugins".into()));

        Programs::kept(&kept).stage(&present).unwrap().replace(&present).unwrap();
        assert_eq!((read("agent"), read(PLUGINS)), ("old".into(), "old plugins".into()));
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 2, "nothing staged is left");
    }

    #[test]
    fn an_agent_alone_leaves_the_plugins_and_what_is_discarded_is_gone() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &[("agent", "old"), (PLUGINS, "plugins")]);
        write(&root.path().join("new"), &[("x", "new")]);
        let present = Programs::of_file(&root.path().join("agent"));
        let staged = Programs::of_file(&root.path().join("new/x")).stage(&present).unwrap();
        assert_eq!(staged.plugins, None);
        staged.discard().unwrap();
        staged.discard().unwrap();
        assert_eq!(fs::read_to_string(root.path().join("agent")).unwrap(), "old");
        let missing = Programs::of_file(&root.path().join("nowhere")).stage(&present).unwrap_err();
        assert!(missing.to_string().contains("nowhere"), "{missing}");
    }
}
