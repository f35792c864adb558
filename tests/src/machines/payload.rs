//! A disk with what a test brings into a machine: our programs, and images as archives, since there is no registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use cri::import::ImageConfig;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::assets::Assets;
use crate::harness::images::{Recipe, bin_dir, recipes};
use crate::harness::shell::{output, run};
use crate::harness::upstream::Upstream;

/// The Debian packages on the disk.
const PACKAGES: [(&str, &str); 2] =
    [("keelson-agent_1_amd64.deb", Payload::PACKAGE), ("keelson-master_1_amd64.deb", Payload::MASTER_PACKAGE)];
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
    /// The Debian packages on the disk.
    pub const PACKAGE: &'static str = "keelson-agent.deb";
    pub const MASTER_PACKAGE: &'static str = "keelson-master.deb";
    /// The folder on it with containerd's packages.
    pub const REPOSITORY: &'static str = "debian";

    /// The disk that was made below `dir`.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self { disk: dir.join("payload.ext4") }
    }

    /// Gathers our package and images below `dir` and makes a disk of them.
    ///
    /// # Errors
    /// When a program was not built.
    pub fn make(dir: &Path, assets: &Assets) -> Result<Self> {
        Self::with(dir, |content| {
            archive(&content.join("images.tar"), recipes()?)?;
            repository(&content.join(Self::REPOSITORY), &assets.debian.join("debs"))
        })
    }

    /// Gathers our packages, and what `more` puts beside them into the folder that it is given.
    ///
    /// # Errors
    /// When a program was not built, or `more` fails.
    pub fn with(dir: &Path, more: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        Self::disk_of(dir, |content| {
            package(dir, content)?;
            more(content)
        })
    }

    /// Gathers kubeadm, the kubelet, the reference CNI plugins and images.
    ///
    /// # Errors
    /// When something cannot be copied.
    pub fn stock(dir: &Path, upstream: &Upstream) -> Result<Self> {
        Self::disk_of(dir, |content| {
            for name in ["kubeadm", "kubelet", "cni"] {
                run("cp", ["-r", &upstream.program(name).to_string_lossy(), &content.to_string_lossy()])?;
            }
            archive(&content.join("images.tar"), recipes()?)?;
            fs::copy(upstream.images.join("pause.tar"), content.join("pause.tar")).context("the pause image")?;
            Ok(())
        })
    }

    fn disk_of(dir: &Path, gather: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let (content, Self { disk }) = (dir.join("payload"), Self::of(dir));
        fs::create_dir_all(&content)?;
        gather(&content)?;
        let bytes = bytes_in(&content).with_context(|| format!("list {}", content.display()))?;
        let size = format!("{}M", bytes / MIB * 6 / 5 + 64);
        run("mke2fs", ["-q", "-t", "ext4", "-d", &content.to_string_lossy(), &disk.to_string_lossy(), &size])?;
        fs::remove_dir_all(&content)?;
        Ok(Self { disk })
    }
}

/// How much a folder holds.
fn bytes_in(folder: &Path) -> std::io::Result<u64> {
    let sizes = fs::read_dir(folder)?.map(|entry| {
        let entry = entry?;
        if entry.file_type()?.is_dir() { bytes_in(&entry.path()) } else { Ok(entry.metadata()?.len()) }
    });
    sizes.sum()
}

/// A repository of Debian packages, as apt reads one in a folder.
fn repository(to: &Path, debs: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let mut index = String::new();
    for deb in fs::read_dir(debs).with_context(|| format!("list {}", debs.display()))? {
        let deb = deb?;
        let (path, name) = (deb.path(), deb.file_name().to_string_lossy().into_owned());
        fs::copy(&path, to.join(&name)).with_context(|| name.clone())?;
        let bytes = fs::read(&path)?;
        let control = run("dpkg-deb", ["--field", &path.to_string_lossy()])?;
        index += &format!(
            "{}\nFilename: ./{name}\nSize: {}\nSHA256: {}\n\n",
            control.trim_end(),
            bytes.len(),
            sha256(&bytes)
        );
    }
    fs::write(to.join("Packages"), index).context("the repository's index")
}

/// Has the programs that were built packaged as they are shipped, and takes the packages and the archive.
fn package(dir: &Path, to: &Path) -> Result<()> {
    let (programs, out) = (bin_dir(), dir.join("packages"));
    let mut xtask = Command::new(programs.join("xtask"));
    xtask.args(["package", "--release", "1"]).arg("--programs").arg(&programs).arg("--out").arg(&out);
    output(&mut xtask).with_context(|| format!("{}: build it with `make build`", programs.display()))?;
    for (made, name) in PACKAGES.into_iter().chain([(ARCHIVE, ARCHIVE)]) {
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
    json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": config.entrypoint, "Cmd": config.cmd, "Env": config.env},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(layer))]},
    })
}

fn sha256(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(&Sha256::digest(bytes))
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
