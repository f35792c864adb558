//! Where the stock components, the upstream suites and the stand-ins for upstream's test images are: `tests/upstream/build` makes them
//! once a machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::images::checkout;

/// What `tests/upstream/build` made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// kube-apiserver, kubelet, e2e.test, …, and `cni/`.
    pub bin: PathBuf,
    /// Image archives.
    pub images: PathBuf,
    /// `containerd/` (containerd 2 and its shim), `runc`, `registry`, `busybox`.
    pub debian: PathBuf,
}

impl Upstream {
    /// The folder that all checkouts of this machine share.
    ///
    /// # Errors
    /// When neither `KEELSON_CACHE` nor a home folder is known.
    pub fn cache() -> Result<PathBuf> {
        let given = std::env::var_os("KEELSON_CACHE").map(PathBuf::from);
        let own = || std::env::home_dir().map(|home| home.join(".cache/keelson"));
        Ok(given.or_else(own).context("neither KEELSON_CACHE nor a home folder is known")?.join("upstream"))
    }

    /// Builds what is not there yet, which takes some ten minutes on a new machine and is told on standard error.
    ///
    /// # Errors
    /// When a tool is missing or something does not build.
    pub fn build() -> Result<Self> {
        let path = built(&checkout().join("tests/upstream/build"))?;
        Ok(Self { bin: path("bin")?, images: path("images")?, debian: path("debian")? })
    }

    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// The image archives.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn archives(&self) -> Result<Vec<PathBuf>> {
        let dir = fs::read_dir(&self.images).with_context(|| format!("list {}", self.images.display()))?;
        let mut found: Vec<PathBuf> = dir.flatten().map(|e| e.path()).collect();
        found.retain(|p| p.extension().is_some_and(|e| e == "tar"));
        found.sort();
        Ok(found)
    }
}

/// Runs a script that builds what is not there yet and says `name=path` for each thing; answers where a thing is.
///
/// # Errors
/// When the script fails.
pub fn built(script: &Path) -> Result<impl Fn(&str) -> Result<PathBuf> + use<>> {
    let out = Command::new(script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {}", script.display()))?;
    ensure!(out.status.success(), "{} failed: {}", script.display(), out.status);
    let said = String::from_utf8(out.stdout).context("its answer")?;
    let script = script.to_owned();
    Ok(move |name: &str| {
        let value = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        Ok(value.with_context(|| format!("{} does not say where {name} is", script.display()))?.into())
    })
}
