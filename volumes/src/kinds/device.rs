//! A file system on a block device: made where there is nothing, checked, and mounted, by the machine's own programs
//! (`SafeFormatAndMount` of mount-utils, `mountLocalBlockDevice` of pkg/volume/local). Texts are upstream's.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The type where none is said.
const DEFAULT_TYPE: &str = "ext4";
/// `blkid` found nothing.
const NOTHING: i32 = 2;
/// `fsck` found what it could not put right.
const UNCORRECTED: i32 = 4;

/// What a PersistentVolume says of its file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FileSystem {
    /// `fsType`
    pub(crate) kind: Option<String>,
    /// `mountOptions`
    pub(crate) options: Vec<String>,
}

impl FileSystem {
    pub(crate) fn kind(&self) -> &str {
        self.kind.as_deref().filter(|kind| !kind.is_empty()).unwrap_or(DEFAULT_TYPE)
    }

    /// Mounts `device` on the folder `target`. Blocks.
    pub(crate) fn mount(&self, device: &Path, target: &Path, read_only: bool) -> Result<(), String> {
        let kind = self.kind();
        // It becomes a part of a program's name.
        if !kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
            return Err(format!("{kind:?} is no type of file system"));
        }
        let format = format_of(device)?;
        match format.as_deref() {
            None if read_only => {
                let device = device.display();
                return Err(format!(
                    "cannot mount unformatted disk {device} as we are manipulating it in read-only mode"
                ));
            }
            None => make(kind, device)?,
            Some(_) if read_only => {}
            Some(_) => check(device)?,
        }
        let ro = read_only.then(|| "ro".to_owned());
        let options = ro.into_iter().chain(self.options.iter().cloned()).chain(["defaults".to_owned()]);
        let options: Vec<String> = options.collect();
        let mut mount = Command::new("mount");
        done(mount.args(["-t", kind, "-o", &options.join(",")]).arg(device).arg(target))
    }
}

/// Shows what is mounted on `from` on `to`, too. Blocks.
pub(crate) fn bind(from: &Path, to: &Path) -> Result<(), String> {
    done(Command::new("mount").arg("--bind").arg(from).arg(to))
}

/// What is on a device; `None` where there is nothing.
fn format_of(device: &Path) -> Result<Option<String>, String> {
    let failed = |why: String| format!("failed to get disk format of disk {}: {why}", device.display());
    // To `blkid` what cannot be read is blank, too.
    let read = File::open(device).and_then(|mut file| file.read_exact(&mut [0; 4096]));
    read.map_err(|error| failed(error.to_string()))?;
    let mut blkid = Command::new("blkid");
    let said = run(blkid.args(["-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export"]).arg(device));
    let said = said.map_err(|error| failed(error.to_string()))?;
    match said.status.code() {
        Some(0) => Ok(format(&String::from_utf8_lossy(&said.stdout))),
        Some(NOTHING) => Ok(None),
        _ => Err(failed(text(&said))),
    }
}

/// What is on a device by what `blkid` says of it. Partitions are something, too.
fn format(said: &str) -> Option<String> {
    let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    match value("PTTYPE") {
        Some(_) => Some("unknown data, probably partitions".to_owned()),
        None => value("TYPE").map(str::to_owned),
    }
}

fn make(kind: &str, device: &Path) -> Result<(), String> {
    let options: &[&str] = match kind {
        "ext3" | "ext4" => &["-F", "-m0"],
        "xfs" => &["-f"],
        _ => &[],
    };
    tracing::info!(device = %device.display(), kind, "device is empty: file system made");
    done(Command::new(format!("mkfs.{kind}")).args(options).arg(device))
        .map_err(|why| format!("format of disk {:?} failed: type:({kind:?}) {why}", device.display().to_string()))
}

/// Only what stays broken keeps it from being mounted.
fn check(device: &Path) -> Result<(), String> {
    match run(Command::new("fsck").arg("-a").arg(device)) {
        Ok(said) if said.status.code() == Some(UNCORRECTED) => Err(format!(
            "'fsck' found errors on device {} but could not correct them: {}",
            device.display(),
            text(&said)
        )),
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, "fsck cannot be run; mounted without");
            Ok(())
        }
    }
}

fn done(command: &mut Command) -> Result<(), String> {
    let program = PathBuf::from(command.get_program());
    match run(command) {
        Ok(said) if said.status.success() => Ok(()),
        Ok(said) => Err(format!("{}: {}: {}", program.display(), said.status, text(&said))),
        Err(error) => Err(format!("{}: {error}", program.display())),
    }
}

fn run(command: &mut Command) -> io::Result<Output> {
    command.env("LC_ALL", "C").output()
}

fn text(said: &Output) -> String {
    [&said.stdout, &said.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned())
        .join(" ")
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_blank_is_formatted() {
        assert_eq!(format("DEVNAME=/dev/sdb\nTYPE=xfs\n").as_deref(), Some("xfs"));
        assert_eq!(format("DEVNAME=/dev/sdb\nPTTYPE=gpt\n").as_deref(), Some("unknown data, probably partitions"));
        assert_eq!(format("DEVNAME=/dev/sdb\n"), None);
        assert!(
            format_of(Path::new("/nowhere")).unwrap_err().starts_with("failed to get disk format of disk /nowhere")
        );
        let odd = FileSystem { kind: Some("../x".into()), options: Vec::new() };
        assert!(odd.mount(Path::new("/nowhere"), Path::new("/nowhere"), false).is_err());
    }
}
