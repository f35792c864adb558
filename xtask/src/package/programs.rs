//! The programs as they are shipped: musl, linked statically, with nothing in them that tells where they were built; and what is in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use keelson_tests::harness::shell::output;

const TARGET: &str = "x86_64-unknown-linux-musl";
/// As built by cargo.
const BUILT: [&str; 3] = ["agent", "master", "cni-plugins"];
/// More is a mistake: somebody linked what nobody needs. (Of 15 MB, which were wanted, the agent has 16.9 and the master 20.5, nearly all
/// of it code. Of the agent's, 2.9 MB are tables by which a panic unwinds: without them one request that panics would end the program.
/// Tried: folding identical code in lld saves nothing, LLVM's machine outliner makes the agent larger.)
const LARGEST: u64 = 21 * 1024 * 1024;
/// Writes bills of materials (OWASP's).
const CYCLONEDX: [&str; 2] = ["cargo-cyclonedx", "0.5.9"];

/// Builds all programs and their bills of materials, and answers the folder that they are in.
pub fn build(root: &Path, epoch: u64) -> Result<PathBuf> {
    println!("building {} for {TARGET}: some ten minutes", BUILT.join(", "));
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    // Paths are in panic messages, those of generated code too. The last that fits counts.
    let flags =
        [(root.to_path_buf(), "/keelson"), (PathBuf::from(home), "/cargo"), (target.clone(), "/keelson/target")]
            .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
            .join("\x1f");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root).args(["build", "--locked", "--profile", "dist", "--target", TARGET]);
    cargo.args(BUILT.iter().flat_map(|name| ["-p", name]));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags).env("SOURCE_DATE_EPOCH", epoch.to_string());
    let status = cargo.status().context("start cargo")?;
    ensure!(
        status.success(),
        "cargo build: {status}. Is {TARGET} there? rustup target add {TARGET}; make prepare-package"
    );
    let dir = target.join(TARGET).join("dist");
    for program in BUILT {
        check_size(&dir.join(program))?;
    }
    for program in ["agent", "master"] {
        bill(root, program, &dir, epoch)?;
    }
    Ok(dir)
}

fn check_size(program: &Path) -> Result<()> {
    let size = fs::metadata(program).with_context(|| program.display().to_string())?.len();
    println!("{}: {:.1} MB", program.display(), size as f64 / 1e6);
    ensure!(size <= LARGEST, "{} has {size} bytes, where {LARGEST} are the most", program.display());
    Ok(())
}

/// Writes `PROGRAM.cdx.json` into `dir`: every crate that is linked into the program, with version, hash and licence.
fn bill(root: &Path, program: &str, dir: &Path, epoch: u64) -> Result<()> {
    let [tool, version] = CYCLONEDX;
    if Command::new(tool).args(["cyclonedx", "--version"]).output().is_err() {
        output(Command::new("cargo").args(["install", "--quiet", "--locked", "--version", version, tool]))?;
    }
    let name = format!("{program}.cdx");
    let mut cyclonedx = Command::new(tool);
    cyclonedx.args(["cyclonedx", "--quiet", "--format", "json", "--target", TARGET, "--override-filename", &name]);
    cyclonedx.arg("--manifest-path").arg(root.join(program).join("Cargo.toml"));
    cyclonedx.current_dir(root).env("SOURCE_DATE_EPOCH", epoch.to_string());
    output(&mut cyclonedx)?;
    let file = format!("{name}.json");
    let text = fs::read_to_string(root.join(program).join(&file)).with_context(|| file.clone())?;
    // The tool writes one beside each manifest of the workspace, with the folders of this machine in them.
    for manifest in output(Command::new("git").current_dir(root).args(["ls-files", "--", "*Cargo.toml"]))?.lines() {
        let _ = fs::remove_file(root.join(manifest).with_file_name(&file));
    }
    let text = text.replace(&root.display().to_string(), "/keelson");
    fs::write(dir.join(&file), text).with_context(|| file)
}
