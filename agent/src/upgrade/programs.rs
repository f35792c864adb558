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
                // One without the other is of no use to anybody.
                copy(from, &staged(at)).inspect_err(|_| drop(remove(&agent)))?;
                Some(staged(at))
            }
            _ => None,
        };
        Ok(Self { agent, plugins })
    }

    /// Whether these, in their places, are what `staged` would put there.
    pub fn has_same(&self, staged: &Self) -> bool {
        let same = |a: &Path, b: &Path| matches!((fs::read(a), fs::read(b)), (Ok(a), Ok(b)) if a == b);
        let plugins = match (&self.plugins, &staged.plugins) {
            (Some(at), Some(from)) => same(at, from),
            _ => true,
        };
        plugins && same(&self.agent, &staged.agent)
    }

    /// Removes what an upgrade that was cut short has left beside these.
    pub fn tidy(&self) -> Result<(), UpgradeError> {
        self.plugins.iter().chain([&self.agent]).try_for_each(|path| {
            remove(&staged(path))?;
            remove(&partial(&staged(path)))
        })
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

/// Where a copy is until it is whole.
fn partial(path: &Path) -> PathBuf {
    path.with_extension("partial")
}

pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> UpgradeError {
    let path = path.to_owned();
    move |source| UpgradeError::File { path, source }
}

/// A program, whole or not at all, and on the disk before anything depends on it.
fn copy(from: &Path, to: &Path) -> Result<(), UpgradeError> {
    let mut source = fs::File::open(from).map_err(file(from))?;
    let partial = partial(to);
    let copied = (|| {
        let mut target = fs::File::create(&partial)?;
        io::copy(&mut source, &mut target)?;
        target.set_permissions(fs::Permissions::from_mode(0o755))?;
        target.sync_all()?;
        fs::rename(&partial, to)
    })();
    if copied.is_err() {
        // The copy's own error is the one to tell.
        let _ = fs::remove_file(&partial);
    }
    copied.map_err(file(to))
}

pub(super) fn remove(path: &Path) -> Result<(), UpgradeError> {
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

    #[test]
    fn what_cannot_be_staged_leaves_nothing_and_names_the_place() {
        let root = tempfile::tempdir().unwrap();
        let (bin, new) = (root.path().join("bin"), root.path().join("new"));
        write(&bin, &[("agent", "old")]);
        write(&new, &[("agent", "new"), (PLUGINS, "new plugins")]);
        // The plugins' folder is gone: the error is of the target, not of what is copied.
        let gone = root.path().join("gone").join(PLUGINS);
        let present = Programs { agent: bin.join("agent"), plugins: Some(gone) };
        let error = Programs::of_file(&new.join("agent")).stage(&present).unwrap_err();
        assert!(error.to_string().contains("gone/.keelson-cni.new"), "{error}");
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 1, "nothing staged is left");
    }

    #[test]
    fn what_an_upgrade_that_was_killed_has_left_is_tidied_away() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &[("agent", "old"), (".agent.new", "new"), (".agent.partial", "ne")]);
        let present = Programs::of_file(&root.path().join("agent"));
        present.tidy().unwrap();
        present.tidy().unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
