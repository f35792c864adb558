//! A Debian package, by dpkg-deb.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use jiff::{Timestamp, fmt::rfc2822, tz::TimeZone};
use keelson_tests::harness::{images::checkout, shell::output};
use systemd::{Role, SLICE, Service, service_text, slice_text};

use super::stage::{Layout, Stage};
use super::{Package, Release};

const ARCHITECTURE: &str = "amd64";
const MAINTAINER: &str = "Keelson <keelson@keelson.dev>";
const LAYOUT: Layout = Layout { bin: "usr/bin", plugins: "usr/lib/keelson", share: "usr/share" };
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
const UNITS: &str = "usr/lib/systemd/system";

/// Makes the package in `out`.
pub fn build(package: &Package, release: &Release, programs: &Path, work: &Path, out: &Path) -> Result<PathBuf> {
    let stage = Stage::new(work.join(package.name()))?;
    stage.package(package, programs, &LAYOUT)?;
    units(package, &stage)?;
    documents(package, release, &stage)?;
    output(
        Command::new("sh")
            .current_dir(stage.root.join("usr/share/man"))
            .args(["-c", "find . -type f -exec gzip -9n {} +"]),
    )?;
    stage.settle()?;
    control(package, release, &stage)?;
    let path = out.join(format!("{}_{}_{ARCHITECTURE}.deb", package.name(), release.version));
    let mut dpkg = Command::new("dpkg-deb");
    // More threads would cut the archive at other places on other machines.
    dpkg.args(["--root-owner-group", "-Zxz", "--threads-max=1", "--build"]).arg(&stage.root).arg(&path);
    output(dpkg.env("SOURCE_DATE_EPOCH", release.epoch.to_string()))?;
    Ok(path)
}

/// The unit is the one that `join` or `init` would write: it then has nothing to write.
fn units(package: &Package, stage: &Stage) -> Result<()> {
    let unit = package.role.unit_name();
    stage.write(&format!("{UNITS}/{unit}"), service_text(&Service::packaged(package.role)), 0o644)?;
    // Both packages may be on one machine, and a file belongs to one of them; without it the slice has systemd's defaults.
    if package.role == Role::Agent {
        stage.write(&format!("{UNITS}/{SLICE}"), slice_text(), 0o644)?;
    }
    let environment = format!(
        "# Variables of {unit}, NAME=VALUE a line, such as what is logged.\n# {}=info\n\
         # A proxy is not set here: containerd fetches images (`systemctl edit containerd`), and nodes and masters are asked straight.\n",
        if package.role == Role::Agent { "KEELSON_LOG" } else { "RUST_LOG" }
    );
    stage.write(&format!("etc/default/{}", package.name()), environment, 0o644)
}

fn documents(package: &Package, release: &Release, stage: &Stage) -> Result<()> {
    let name = package.name();
    stage.write(&format!("usr/share/doc/{name}/copyright"), fs::read(source("copyright"))?, 0o644)?;
    let date = rfc2822::to_string(&Timestamp::from_second(release.epoch.try_into()?)?.to_zoned(TimeZone::UTC))?;
    let changes = format!(
        "{name} ({}) unstable; urgency=medium\n\n  * What has changed is in CHANGELOG.md of the sources.\n\n -- {MAINTAINER}  {date}\n",
        release.version
    );
    let path = format!("usr/share/doc/{name}/changelog");
    stage.write(&path, changes, 0o644)?;
    output(Command::new("gzip").arg("-9n").arg(stage.root.join(path)))?;
    let mut overrides = format!(
        "# Runs on any distribution: musl is linked in, and nothing is looked up at run time. What is static and may lie anywhere\n\
         # in memory looks like a library to lintian.\n{name}: statically-linked-binary\n{name}: shared-library-lacks-prerequisites\n"
    );
    if package.role == Role::Agent {
        overrides.push_str("# Called by containerd, never by hand.\n");
    }
    stage.write(&format!("usr/share/lintian/overrides/{name}"), overrides, 0o644)
}

fn control(package: &Package, release: &Release, stage: &Stage) -> Result<()> {
    let files = stage.files()?;
    let (mut sums, mut size) = (String::new(), 0);
    for file in &files {
        size += fs::metadata(stage.root.join(file))?.len().div_ceil(1024);
        if !file.starts_with("etc/") {
            sums.push_str(&output(Command::new("md5sum").current_dir(&stage.root).arg(file))?);
        }
    }
    let mut text = format!(
        "Package: keelson-{}\nVersion: {}\nArchitecture: {ARCHITECTURE}\nMaintainer: {MAINTAINER}\nInstalled-Size: {size}\n",
        package.program, release.version
    );
    if !package.depends.is_empty() {
        writeln!(text, "Depends: {}", package.depends)?;
    }
    writeln!(text, "Section: admin\nPriority: optional\nDescription: {}", package.summary)?;
    for line in package.description.lines() {
        writeln!(text, " {line}")?;
    }
    stage.write("DEBIAN/control", text, 0o644)?;
    stage.write("DEBIAN/md5sums", sums, 0o644)?;
    let settings: String =
        files.iter().filter(|file| file.starts_with("etc/")).map(|file| format!("/{file}\n")).collect();
    stage.write("DEBIAN/conffiles", settings, 0o644)?;
    for script in SCRIPTS {
        let path = source(package.program).join(script);
        stage.write(
            &format!("DEBIAN/{script}"),
            fs::read(&path).with_context(|| path.display().to_string())?,
            0o755,
        )?;
    }
    Ok(())
}

fn source(name: &str) -> PathBuf {
    checkout().join("packaging").join(name)
}
