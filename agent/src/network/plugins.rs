//! Our CNI plugins in the folder where containerd looks for them: one binary, under the standard names.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The names, as <https://www.cni.dev/plugins/current/> has them.
const NAMES: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];
/// What the binary is called in the plugin folder. A plugin that is a link to it is ours.
const BINARY: &str = "keelson-cni";
/// What it may be called beside the agent: as installed, and as cargo builds it.
const SOURCES: [&str; 2] = ["keelson-cni", "cni-plugins"];
/// Where packages have it: programs that nobody calls by hand.
const PACKAGED: &str = "/usr/lib/keelson/keelson-cni";

/// Why the plugins are not in place.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Nothing to install.
    #[error("no {BINARY} beside {0}, and no {PACKAGED}")]
    Missing(PathBuf),
    /// A file or folder that could not be made.
    #[error("{path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Puts the plugins into `dir` and answers how many names are ours now. Plugins of somebody else's stay: they do what
/// the names say.
///
/// # Errors
/// See [`PluginError`].
pub(super) fn install(dir: &Path) -> Result<usize, PluginError> {
    place(&source()?, dir)
}

/// The file that they are copied from.
///
/// # Errors
/// There is none.
pub(crate) fn source() -> Result<PathBuf, PluginError> {
    let executable =
        std::env::current_exe().map_err(|source| PluginError::File { path: "/proc/self/exe".into(), source })?;
    let beside = executable.parent().unwrap_or(Path::new("/"));
    SOURCES
        .iter()
        .map(|name| beside.join(name))
        .chain([PathBuf::from(PACKAGED)])
        .find(|path| path.is_file())
        .ok_or_else(|| PluginError::Missing(executable.clone()))
}

fn place(source: &Path, dir: &Path) -> Result<usize, PluginError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| PluginError::File { path, source }
    };
    fs::create_dir_all(dir).map_err(file(dir))?;
    let binary = dir.join(BINARY);
    let before = fs::metadata(&binary).map(|m| m.ino()).ok();
    if !is_same_file(source, &binary) {
        copy(source, &binary).map_err(file(&binary))?;
    }
    let mut ours = 0;
    for name in NAMES {
        let path = dir.join(name);
        match fs::metadata(&path) {
            Ok(present) if Some(present.ino()) != before => continue,
            _ => link(&binary, &path).map_err(file(&path))?,
        }
        ours += 1;
    }
    Ok(ours)
}

/// The plugin `name`, if it is ours.
pub(super) fn ours(dir: &Path, name: &str) -> Option<PathBuf> {
    let path = dir.join(name);
    let number = |path: &Path| fs::metadata(path).map(|m| m.ino()).ok();
    (number(&path)? == number(&dir.join(BINARY))?).then_some(path)
}

/// Removes what [`install`] made.
///
/// # Errors
/// See [`PluginError`].
pub(super) fn remove(dir: &Path) -> Result<(), PluginError> {
    let binary = dir.join(BINARY);
    let Ok(ours) = fs::metadata(&binary).map(|m| m.ino()) else { return Ok(()) };
    let links =
        NAMES.map(|name| dir.join(name)).into_iter().filter(|path| fs::metadata(path).is_ok_and(|m| m.ino() == ours));
    for path in links.chain([binary.clone()]) {
        fs::remove_file(&path).map_err(|source| PluginError::File { path, source })?;
    }
    Ok(())
}

/// Size and time stand for content: the copy takes over the time of its source.
fn is_same_file(source: &Path, copy: &Path) -> bool {
    let (Ok(source), Ok(copy)) = (fs::metadata(source), fs::metadata(copy)) else { return false };
    source.len() == copy.len() && source.mtime() == copy.mtime()
}

/// Through a temporary file, since a plugin may be running: its text cannot be written to, but it can be replaced.
fn copy(source: &Path, target: &Path) -> io::Result<()> {
    let temporary = target.with_extension(format!("{}.tmp", std::process::id()));
    let copied = (|| {
        fs::copy(source, &temporary)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755))?;
        let modified = fs::metadata(source)?.modified()?;
        fs::File::options().write(true).open(&temporary)?.set_modified(modified)?;
        fs::rename(&temporary, target)
    })();
    if copied.is_err() {
        drop(fs::remove_file(&temporary));
    }
    copied
}

fn link(binary: &Path, path: &Path) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::hard_link(binary, &temporary)?;
    // rename() of two names of one file does nothing and keeps both: the temporary one goes in any case.
    let renamed = fs::rename(&temporary, path);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_links_foreign_ones_stay_and_updates_reach_all() {
        let root = std::env::temp_dir().join(format!("keelson-plugins-{}", std::process::id()));
        let dir = root.join("bin");
        fs::create_dir_all(&dir).unwrap();
        let source = root.join("cni-plugins");
        fs::write(&source, "one").unwrap();
        fs::write(dir.join("portmap"), "theirs").unwrap();
        assert_eq!(place(&source, &dir).unwrap(), 3);
        assert_eq!(place(&source, &dir).unwrap(), 3);
        assert_eq!(fs::read_to_string(dir.join("portmap")).unwrap(), "theirs");
        assert_eq!((ours(&dir, "portmap"), ours(&dir, "bridge")), (None, Some(dir.join("bridge"))));
        assert_eq!(fs::metadata(dir.join("bridge")).unwrap().nlink(), 4);
        fs::write(&source, "newer").unwrap();
        assert_eq!(place(&source, &dir).unwrap(), 3);
        for name in ["bridge", "host-local", "loopback", "keelson-cni"] {
            assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), "newer", "{name}");
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 5);
        remove(&dir).unwrap();
        remove(&dir).unwrap();
        assert_eq!(fs::read_to_string(dir.join("portmap")).unwrap(), "theirs");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&root).unwrap();
    }
}
