//! `agent support-bundle`: one archive with what one would ask for who is to help, and no secrets.
//!
//! [`gather`] only looks where no secret should be; [`redact`] goes over every text all the same.

mod gather;
mod redact;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::config::Config;
use redact::redact;

/// Command line of `agent support-bundle`.
#[derive(Debug, Clone, Args)]
pub struct BundleOptions {
    /// Folder of configuration and keys
    #[arg(long, default_value = "/etc/keelson")]
    pub config_dir: PathBuf,
    /// The archive [default: keelson-support-NODE-TIME.tar.gz in this folder]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// A file of the archive.
struct Part {
    name: String,
    content: Result<String, String>,
}

impl Part {
    fn new(name: impl Into<String>, content: Result<String, String>) -> Self {
        Self { name: name.into(), content }
    }

    /// What is written: without secrets, and with the reason where there is nothing.
    fn text(&self) -> String {
        match &self.content {
            Ok(text) => redact(text),
            Err(error) => format!("could not be had: {}\n", redact(error)),
        }
    }
}

/// Writes the archive.
///
/// # Errors
/// It cannot be written. That something could not be gathered is told in it.
pub async fn bundle(options: &BundleOptions) -> anyhow::Result<()> {
    anyhow::ensure!(nix::unistd::geteuid().is_root(), "this looks at everything, and needs root: try again with sudo");
    let node =
        Config::load(&options.config_dir).map_or_else(|_| "unknown".to_owned(), |(config, _)| config.node.node_name);
    let path = options.output.clone().unwrap_or_else(|| gather::default_output(&node));
    let parts = gather::gather(&options.config_dir).await;
    write(&path, &parts).with_context(|| path.display().to_string())?;
    let missing: Vec<&str> = parts.iter().filter(|part| part.content.is_err()).map(|part| part.name.as_str()).collect();
    manual::output::line(format_args!("{}: {} files", path.display(), parts.len()));
    if !missing.is_empty() {
        manual::output::line(format_args!("could not be had: {}", missing.join(", ")));
    }
    manual::output::line(format_args!(
        "tokens, keys and passwords are taken out; look into it before you give it away"
    ));
    Ok(())
}

fn write(path: &Path, parts: &[Part]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let now = u64::try_from(crate::identity::now()).unwrap_or_default();
    for part in parts {
        let text = part.text();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_mtime(now);
        header.set_size(text.len() as u64);
        archive.append_data(&mut header, Path::new("keelson-support").join(&part.name), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_archive_has_every_part_and_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.tar.gz");
        let parts = [
            Part::new("a.txt", Ok("token: abcdef.0123456789abcdef\nkept\n".to_owned())),
            Part::new("logs/b.txt", Err("no answer".to_owned())),
        ];
        write(&path, &parts).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(&path).unwrap()));
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((entry.path().unwrap().display().to_string(), text));
        }
        let expected = [
            ("keelson-support/a.txt", "token: [removed]\nkept\n"),
            ("keelson-support/logs/b.txt", "could not be had: no answer\n"),
        ];
        assert_eq!(found, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
