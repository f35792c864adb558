//! `install`: puts the binary under the plugins' names into a folder.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use crate::PLUGINS;

/// Links this binary into `folder` by the plugins' standard names; copies it where it cannot be linked. A file of that
/// name is replaced at once, so that a runtime that calls it meanwhile finds the old one or the new one.
pub fn install(folder: &Path) -> Result<()> {
    let own = std::env::current_exe().context("find own binary")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let first = folder.join(format!(".keelson-cni-{}", std::process::id()));
    let placed = place(&own, &first).with_context(|| format!("write {}", first.display()));
    let linked = placed.and_then(|()| PLUGINS.iter().try_for_each(|name| link(&first, &folder.join(name))));
    fs::remove_file(&first).with_context(|| format!("remove {}", first.display())).and(linked)
}

fn place(own: &Path, first: &Path) -> io::Result<()> {
    match fs::hard_link(own, first) {
        Ok(()) => Ok(()),
        // Another file system, or one without hard links.
        Err(_) => fs::copy(own, first).map(drop),
    }
}

fn link(from: &Path, to: &Path) -> Result<()> {
    let temporary = to.with_extension(format!("new-{}", std::process::id()));
    let replace = || {
        fs::hard_link(from, &temporary)?;
        fs::rename(&temporary, to)?;
        // Renaming a link onto another one of the same file does nothing, and leaves both.
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    };
    replace().with_context(|| format!("install {}", to.display()))
}
