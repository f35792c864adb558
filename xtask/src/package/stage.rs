//! The files of a package, laid out in a folder as they will lie on the machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use keelson_tests::harness::shell::output;

use super::Package;

/// A folder that becomes `/`.
pub struct Stage {
    pub root: PathBuf,
}

impl Stage {
    pub fn new(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root).with_context(|| root.display().to_string())?;
        Ok(Self { root })
    }

    /// Writes a file at `path` (relative).
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let path = self.place(path)?;
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        permit(&path, mode)
    }

    /// Copies a program to `path`.
    pub fn program(&self, from: &Path, path: &str) -> Result<()> {
        let path = self.place(path)?;
        output(Command::new("strip").arg("-o").arg(&path).arg(from))
            .with_context(|| format!("{}: build it with `make package`", from.display()))?;
        permit(&path, 0o755)
    }

    /// The program itself, its man pages and completions, and the CNI plugins with the agent.
    pub fn package(&self, package: &Package, programs: &Path, layout: &Layout) -> Result<()> {
        self.program(&programs.join(package.program), &format!("{}/{}", layout.bin, package.program))?;
        if package.program == "agent" {
            self.program(&programs.join("cni-plugins"), &format!("{}/keelson-cni", layout.plugins))?;
        }
        output(Command::new(programs.join(package.program)).arg("manual").arg(self.root.join(layout.share)))?;
        let bill = programs.join(format!("{}.cdx.json", package.program));
        if bill.exists() {
            self.write(&format!("{}/doc/{}/sbom.cdx.json", layout.share, package.name()), fs::read(&bill)?, 0o644)?;
        }
        Ok(())
    }

    /// Every file, relative, in order.
    pub fn files(&self) -> Result<Vec<String>> {
        let found = output(Command::new("find").arg(&self.root).args(["-type", "f", "-printf", "%P\\n"]))?;
        let mut files: Vec<String> = found.lines().map(str::to_owned).collect();
        files.sort();
        Ok(files)
    }

    /// Folders and what was generated get the rights that everything has; gzip makes what is to be small so.
    pub fn settle(&self) -> Result<()> {
        output(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(&self.root)).map(drop)
    }

    fn place(&self, path: &str) -> Result<PathBuf> {
        let path = self.root.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        Ok(path)
    }
}

/// Where things lie below the root.
pub struct Layout {
    pub bin: &'static str,
    pub plugins: &'static str,
    pub share: &'static str,
}

fn permit(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(|| path.display().to_string())
}
