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
    /// `registry`, `busybox`.
    pub debian: PathBuf,
    /// containerd 2, its shim, and a runc that knows user namespaces.
    pub containerd: PathBuf,
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
        let path = built(&mut script())?;
        Ok(Self {
            bin: path("bin")?,
            images: path("images")?,
            debian: path("debian")?,
            containerd: path("containerd")?,
        })
    }

    /// Of all this only the folder of containerd 2, which takes seconds.
    ///
    /// # Errors
    /// When a tool is missing or Debian's archive does not answer.
    pub fn containerd() -> Result<PathBuf> {
        built(script().arg("containerd"))?("containerd")
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

fn script() -> Command {
    Command::new(checkout().join("tests/upstream/build"))
}

/// Runs a script that builds what is not there yet and says `name=path` for each thing; answers where a thing is.
///
/// # Errors
/// When the script fails.
pub fn built(script: &mut Command) -> Result<impl Fn(&str) -> Result<PathBuf> + use<>> {
    let name = Path::new(script.get_program()).to_owned();
    let out = script
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {}", name.display()))?;
    ensure!(out.status.success(), "{} failed: {}", name.display(), out.status);
    let said = String::from_utf8(out.stdout).context("its answer")?;
    Ok(move |thing: &str| {
        let value = said.lines().find_map(|line| line.strip_prefix(thing)?.strip_prefix('='));
        Ok(value.with_context(|| format!("{} does not say where {thing} is", name.display()))?.into())
    })
}
