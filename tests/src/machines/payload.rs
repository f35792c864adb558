//! A disk with what a test brings into a machine: our programs, and images as archives, since there is no registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use cri::import::ImageConfig;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::harness::images::{Recipe, bin_dir, recipes};
use crate::harness::shell::{output, run};

/// What other distributions get.
const ARCHIVE: &str = "keelson-1-linux-amd64.tar.gz";

const MIB: u64 = 1 << 20;

/// The disk, and where it is mounted in the machine.
#[derive(Debug, Clone)]
pub struct Payload {
    pub disk: PathBuf,
}

impl Payload {
    /// Where machines find it: they mount it themselves.
    pub const MOUNT: &'static str = "/mnt";
    /// The Debian package on the disk.
    pub const PACKAGE: &'static str = "keelson-agent.deb";

    /// The disk that was made below `dir`.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self { disk: dir.join("payload.ext4") }
    }

    /// Gathers our package and images below `dir` and makes a disk of them.
    ///
    /// # Errors
    /// When a program was not built.
    pub fn make(dir: &Path) -> Result<Self> {
        Self::with(dir, |content| archive(&content.join("images.tar"), recipes()?))
    }

    /// Gathers our package, and what `more` puts beside it into the folder that it is given.
    ///
    /// # Errors
    /// When a program was not built, or `more` fails.
    pub fn with(dir: &Path, more: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let (content, Self { disk }) = (dir.join("payload"), Self::of(dir));
        fs::create_dir_all(&content)?;
        package(dir, &content)?;
        more(&content)?;
        let size = format!("{}M", room(&content)?);
        run("mke2fs", ["-q", "-t", "ext4", "-d", &content.to_string_lossy(), &disk.to_string_lossy(), &size])?;
        fs::remove_dir_all(&content)?;
        Ok(Self { disk })
    }
}

/// How many MiB a file system has that a folder fits into.
fn room(content: &Path) -> Result<u64> {
    let sizes: std::io::Result<Vec<u64>> = fs::read_dir(content)?.map(|entry| Ok(entry?.metadata()?.len())).collect();
    let bytes: u64 = sizes.with_context(|| format!("list {}", content.display()))?.iter().sum();
    Ok(bytes / MIB * 6 / 5 + 64)
}

/// Has the programs that were built packaged as they are shipped, and takes the agent's package and the archive.
fn package(dir: &Path, to: &Path) -> Result<()> {
    let (programs, out) = (bin_dir(), dir.join("packages"));
    let mut xtask = Command::new(programs.join("xtask"));
    xtask.args(["package", "--release", "1"]).arg("--programs").arg(&programs).arg("--out").arg(&out);
    output(&mut xtask).with_context(|| format!("{}: build it with `make build`", programs.display()))?;
    for (made, name) in [("keelson-agent_1_amd64.deb", Payload::PACKAGE), (ARCHIVE, ARCHIVE)] {
        fs::copy(out.join(made), to.join(name)).with_context(|| made.to_owned())?;
    }
    fs::remove_dir_all(&out).with_context(|| out.display().to_string())
}

/// One archive of several images, as `docker save` writes it and `ctr images import` reads it.
fn archive(path: &Path, images: Vec<Recipe>) -> Result<()> {
    let mut tar = tar::Builder::new(fs::File::create(path).with_context(|| format!("create {}", path.display()))?);
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content)
    };
    let mut manifest = Vec::new();
    for (number, image) in images.into_iter().enumerate() {
        let (config, layer) = (format!("{number}.json"), format!("{number}.tar"));
        add(&config, config_of(&image.config, &image.layer).to_string().as_bytes())?;
        add(&layer, &image.layer)?;
        manifest.push(json!({"Config": config, "RepoTags": [image.name], "Layers": [layer]}));
    }
    add("manifest.json", json!(manifest).to_string().as_bytes())?;
    tar.finish().context("finish the archive")
}

fn config_of(config: &ImageConfig, layer: &[u8]) -> serde_json::Value {
    let digest = base16ct::lower::encode_string(&Sha256::digest(layer));
    json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": config.entrypoint, "Cmd": config.cmd, "Env": config.env},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_runtimes_import() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.tar");
        let recipe = Recipe { name: "docker.io/a/b:1", config: ImageConfig::default(), layer: vec![0; 1024] };
        archive(&path, vec![recipe]).unwrap();
        let images = cri::import::read_archive(&path).unwrap();
        assert_eq!(images.iter().flat_map(|i| i.names.clone()).collect::<Vec<_>>(), ["docker.io/a/b:1"]);
    }
}
