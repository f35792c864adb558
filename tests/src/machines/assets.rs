//! What `tests/machines/build` made.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::harness::images::checkout;
use crate::harness::upstream::built;

/// QEMU and a disk.
#[derive(Debug, Clone)]
pub struct Assets {
    /// The root of a trixie with QEMU.
    pub qemu: PathBuf,
    /// `vmlinuz`, `initrd.img`, `root.ext4`, and `debs`: the packages of containerd.
    pub debian: PathBuf,
}

impl Assets {
    /// Builds what is not there yet, which takes some five minutes on a new machine and is told on standard error: Debian 13, or what
    /// `KEELSON_DEBIAN` says.
    ///
    /// # Errors
    /// When a tool is missing or a package cannot be had.
    pub fn build() -> Result<Self> {
        let path = built(&mut Command::new(checkout().join("tests/machines/build")))?;
        Ok(Self { qemu: path("qemu")?, debian: path("debian")? })
    }

    /// One of QEMU's programs, run by its own loader and libraries: this machine's are older, and a chroot would hide the disks.
    #[must_use]
    pub fn program(&self, name: &str) -> Command {
        let libraries = self.qemu.join("usr/lib/x86_64-linux-gnu");
        let mut command = Command::new(self.qemu.join("usr/lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(&libraries).arg(self.qemu.join("usr/bin").join(name));
        command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
        command
    }

    /// Where QEMU looks for firmware.
    #[must_use]
    pub fn firmware(&self) -> [PathBuf; 2] {
        [self.qemu.join("usr/share/qemu"), self.qemu.join("usr/share/seabios")]
    }
}
