//! The archive for other distributions: a folder for each program, as it lies below a prefix, and what puts it there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use keelson_tests::harness::{images::checkout, shell::output};

use super::stage::{Layout, Stage};
use super::{PACKAGES, Release};

/// The plugins lie beside the agent, who looks for them there.
const LAYOUT: Layout = Layout { bin: "bin", plugins: "bin", share: "share" };

/// Makes the archive in `out`.
pub fn build(release: &Release, programs: &Path, work: &Path, out: &Path) -> Result<PathBuf> {
    let name = format!("keelson-{}-linux-amd64", release.version);
    let folder = Stage::new(work.join(&name))?;
    for package in &PACKAGES {
        Stage::new(folder.root.join(package.program))?.package(package, programs, &LAYOUT)?;
    }
    folder.settle()?;
    for (file, mode) in [("packaging/install.sh", 0o755), ("packaging/copyright", 0o644), ("LICENSE", 0o644)] {
        let from = checkout().join(file);
        let text = fs::read(&from).with_context(|| from.display().to_string())?;
        folder.write(file.rsplit('/').next().unwrap_or(file), text, mode)?;
    }
    let (tar, path) = (out.join(format!("{name}.tar")), out.join(format!("{name}.tar.gz")));
    let mut pack = Command::new("tar");
    pack.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    pack.arg(format!("--mtime=@{}", release.epoch)).arg("-C").arg(work).arg("-cf").arg(&tar).arg(&name);
    output(&mut pack)?;
    output(Command::new("gzip").arg("-9n").arg(&tar))?;
    Ok(path)
}
