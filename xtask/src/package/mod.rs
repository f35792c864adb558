//! `cargo xtask package`: what is shipped. A Debian package for each program and one archive for other distributions; static, and the same
//! bytes from the same commit in whatever folder it is built.

mod deb;
mod programs;
#[cfg(test)]
mod scripts;
mod stage;
mod tarball;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use keelson_tests::harness::{images::checkout, shell::output};
use systemd::Role;

/// What a package is made from.
#[derive(Args)]
pub struct Options {
    /// Version of the packages; the workspace's where not given
    #[arg(long)]
    release: Option<String>,
    /// A folder with programs that are built already, as tests have them; no SBOM is written for those
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Where packages go [default: target/packages]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// One of the two packages.
struct Package {
    role: Role,
    /// The program, and what the package's own folder below `packaging` is called.
    program: &'static str,
    depends: &'static str,
    summary: &'static str,
    /// Every line but the first of the description.
    description: &'static str,
}

impl Package {
    fn name(&self) -> String {
        format!("keelson-{}", self.program)
    }
}

const PACKAGES: [Package; 2] = [
    Package {
        role: Role::Agent,
        program: "agent",
        depends: "containerd (>= 1.6) | containerd.io",
        summary: "Kubernetes node agent",
        description: "Everything that a worker machine needs beside containerd: kubelet, service\n\
                      proxy, pod network and CNI plugins in one process. \"agent join\" makes this\n\
                      machine a node of a cluster.",
    },
    Package {
        role: Role::Master,
        program: "master",
        depends: "",
        summary: "Kubernetes control plane in one process",
        description: "Everything that a cluster needs: API server, store, scheduler, controllers.\n\
                      \"master init\" makes a cluster on this machine.",
    },
];

/// The version, and the time that every file is said to be from.
struct Release {
    version: String,
    epoch: u64,
}

/// Builds everything and says where it is.
pub fn package(options: &Options) -> Result<()> {
    let root = checkout();
    let release = Release::of(&root, options)?;
    let programs = match &options.programs {
        Some(dir) => dir.clone(),
        None => programs::build(&root, release.epoch)?,
    };
    let out = options.out.clone().unwrap_or_else(|| root.join("target/packages"));
    let work = out.join("stage");
    for folder in [&out, &work] {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut made = Vec::new();
    for package in &PACKAGES {
        made.push(deb::build(package, &release, &programs, &work, &out)?);
    }
    made.push(tarball::build(&release, &programs, &work, &out)?);
    fs::remove_dir_all(&work)?;
    let names = made.iter().filter_map(|path| path.file_name());
    let sums = output(Command::new("sha256sum").current_dir(&out).args(names))?;
    fs::write(out.join("SHA256SUMS"), &sums)?;
    print!("{sums}");
    println!("in {}", out.display());
    Ok(())
}

impl Release {
    fn of(root: &Path, options: &Options) -> Result<Self> {
        let version = options.release.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
        let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(epoch) => epoch,
            Err(_) => output(Command::new("git").current_dir(root).args(["log", "-1", "--format=%ct"]))?,
        };
        Ok(Self { version, epoch: epoch.trim().parse().context("SOURCE_DATE_EPOCH is not a number of seconds")? })
    }
}
