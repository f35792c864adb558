//! The images that clusters on this machine use. No registry: `hello` is built here, `busybox` (a shell and tar for exec and cp)
//! comes from Debian's busybox-static, and the agent brings the pause image itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cri::import::{Image, ImageConfig};

use super::layout::HostPaths;

pub const HELLO: &str = "docker.io/keelson/hello:1";
/// The same image under another name, for updates.
pub const HELLO_2: &str = "docker.io/keelson/hello:2";
pub const BUSYBOX: &str = "docker.io/library/busybox:1";

/// Whom the busybox image knows, and that one of them is in a group of which a pod does not say a word.
const PASSWD: &[u8] = b"root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n";
const GROUP: &[u8] = b"root:x:0:\nalice:x:1000:\nof-image:x:50000:alice\n";

/// Where built programs lie: `KEELSON_BIN_DIR`, or the release folder of this checkout.
#[must_use]
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("KEELSON_BIN_DIR") {
        return dir.into();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout().join("target"), PathBuf::from);
    target.join("release")
}

/// This checkout.
#[must_use]
pub fn checkout() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// What one of our images is made of.
pub struct Recipe {
    pub name: &'static str,
    pub config: ImageConfig,
    /// A tar.
    pub layer: Vec<u8>,
}

/// The images, read from disk once and imported into as many containerds as there are.
///
/// # Errors
/// When a program was not built or busybox is not installed.
pub fn all() -> Result<Vec<Image>> {
    Ok(recipes()?.into_iter().map(|r| Image::from_layer(r.name, &r.config, r.layer)).collect())
}

/// What they are made of.
///
/// # Errors
/// When a program was not built or busybox is not installed.
pub fn recipes() -> Result<Vec<Recipe>> {
    let hello = bin_dir().join("hello");
    let hello = fs::read(&hello).with_context(|| format!("read {}: build it with `make build`", hello.display()))?;
    Ok(vec![greeter(HELLO, &hello, "1")?, greeter(HELLO_2, &hello, "2")?, busybox()?])
}

/// The images of docker archives.
///
/// # Errors
/// When an archive cannot be read.
pub fn archives(paths: &[PathBuf]) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for path in paths {
        images.extend(cri::import::read_archive(path)?);
    }
    Ok(images)
}

fn greeter(name: &'static str, program: &[u8], version: &str) -> Result<Recipe> {
    let layer = layer(&[("hello", program)], &[])?;
    let config = ImageConfig {
        entrypoint: vec!["/hello".into()],
        env: vec![format!("HELLO_VERSION={version}")],
        ..ImageConfig::default()
    };
    Ok(Recipe { name, config, layer })
}

fn busybox() -> Result<Recipe> {
    let path = "/bin/busybox";
    let program = fs::read(path).with_context(|| format!("read {path}: apt-get install busybox-static"))?;
    let said = super::shell::run(path, ["--list"])?;
    let links: Vec<&str> = said.lines().collect();
    let config = ImageConfig {
        cmd: vec!["sh".into()],
        env: vec!["PATH=/bin:/sbin:/usr/bin:/usr/sbin".into()],
        ..ImageConfig::default()
    };
    let files: [(&str, &[u8]); 3] = [("bin/busybox", &program), ("etc/passwd", PASSWD), ("etc/group", GROUP)];
    Ok(Recipe { name: BUSYBOX, config, layer: layer(&files, &links)? })
}

/// A tar of programs and files, of links to busybox in /bin, and of the folders that programs expect.
fn layer(programs: &[(&str, &[u8])], links: &[&str]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for dir in ["tmp/", "etc/", "bin/", "var/", "root/"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if dir == "tmp/" { 0o1777 } else { 0o755 });
        header.set_size(0);
        tar.append_data(&mut header, dir, std::io::empty())?;
    }
    for (name, program) in programs {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(program.len() as u64);
        tar.append_data(&mut header, name, *program)?;
    }
    for link in links.iter().filter(|l| **l != "busybox") {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{link}"), "busybox")?;
    }
    Ok(tar.into_inner()?)
}

/// Imports images into a host's containerd.
///
/// # Errors
/// When containerd refuses one.
pub fn import(host: &HostPaths, images: &[Image], mut done: impl FnMut(&Image)) -> Result<()> {
    super::containerd::call(host, async |client| {
        for image in images {
            cri::import::import(&client, image).await?;
            done(image);
        }
        Ok(())
    })
}
