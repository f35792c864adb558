//! Where a master keeps what it is, and how files there are written.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

pub const DEFAULT: &str = "/var/lib/keelson-master";

/// The names of everything below the data directory; `pki/` is laid out as kubeadm does it.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    pub fn new(root: &Path) -> Self {
        DataDir { root: root.to_owned() }
    }

    /// Makes the directories, readable by their owner only.
    pub fn create(&self) -> Result<()> {
        let pki = self.pki("");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&pki);
        made.with_context(|| format!("cannot make {}", pki.display()))?;
        // The store holds Secrets: a directory that was there before may be open to others.
        let closed = fs::set_permissions(&self.root, Permissions::from_mode(0o700));
        closed.with_context(|| format!("cannot close {} to others", self.root.display()))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn pki(&self, name: &str) -> PathBuf {
        self.root.join("pki").join(name)
    }

    pub fn settings(&self) -> PathBuf {
        self.root.join("master.yaml")
    }

    /// The settings that the running master, or the last one, began with.
    pub fn served_settings(&self) -> PathBuf {
        self.root.join("served.yaml")
    }

    pub fn store(&self) -> PathBuf {
        self.root.join("store.db")
    }

    pub fn admin_conf(&self) -> PathBuf {
        self.root.join("admin.conf")
    }

    pub fn super_admin_conf(&self) -> PathBuf {
        self.root.join("super-admin.conf")
    }

    /// Is there while a backup is being restored: what lies beside it then belongs to two clusters.
    pub fn restoring(&self) -> PathBuf {
        self.root.join("restoring")
    }

    /// Fails where a restoration was interrupted.
    pub fn check_whole(&self) -> Result<()> {
        let is_whole = !self.restoring().exists();
        let root = self.root.display();
        ensure!(
            is_whole,
            "the restoration of a backup into {root} was interrupted: say `master restore --force FILE` again"
        );
        Ok(())
    }

    /// Waits until nobody else changes what is below `pki/`, and keeps others out while the file is open.
    pub fn lock_pki(&self) -> Result<File> {
        let path = self.pki("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let locked = lock.and_then(|file| file.lock().map(|()| file));
        locked.with_context(|| format!("cannot lock {}", path.display()))
    }

    /// A bootstrap token that `master run` is to put into the store when it next starts.
    pub fn pending_token(&self) -> PathBuf {
        self.root.join("pending-token.json")
    }
}

/// Writes a file that only its owner may read. Other processes see the old or the new content, also after a power loss.
pub fn write_private(path: &Path, content: &str) -> Result<()> {
    write_private_bytes(path, content.as_bytes())
}

/// As [`write_private`], for what is no text.
pub fn write_private_bytes(path: &Path, content: &[u8]) -> Result<()> {
    write(path, content, 0o600).with_context(|| format!("cannot write {}", path.display()))
}

/// As [`write_private`], for what everyone may read.
pub fn write_public(path: &Path, content: &str) -> Result<()> {
    write(path, content.as_bytes(), 0o644).with_context(|| format!("cannot write {}", path.display()))
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = write_temporary(&temporary, content, mode).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The write's own error is the one to show; at worst a temporary file stays.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_parent(path)
}

/// Makes what happened to the name of a file outlast a power loss.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Removes a file, for good; one that is not there is fine.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path).and_then(|()| sync_parent(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn write_temporary(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// The file's text, or `None` when there is no such file.
pub fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_files_are_private_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert_eq!(read(&path).unwrap(), None);
        for content in ["one", "two"] {
            write_private(&path, content).unwrap();
            assert_eq!(read(&path).unwrap().as_deref(), Some(content));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn errors_name_the_path() {
        let error = write_private(Path::new("/nonexistent/x"), "").unwrap_err();
        assert_eq!(error.to_string(), "cannot write /nonexistent/x");
    }
}
