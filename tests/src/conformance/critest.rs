//! `make conformance SUITE=cri`: upstream's critest against `cri::fake`, for what the fake claims to be. Every test of ours that runs over
//! the fake rests on this.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Request;
use super::ginkgo::Run;
use super::report::Outcome;
use crate::harness::cluster::Progress;
use crate::harness::images::checkout;
use crate::harness::process::spawn;
use crate::harness::shell::{output, wait_for};
use crate::harness::upstream::Upstream;

/// What the fake claims: see its own words.
const CLAIMED: [&str; 5] = [
    "PodSandbox runtime should support basic operations",
    "Container runtime should support basic operations on container runtime should support (creating|preserving|starting|stopping|removing)",
    "Runtime info",
    "Idempotence",
    "Image Manager public image with (tag|digest)",
];

/// Serves the fake, runs critest against it, and ends it.
///
/// # Errors
/// When the fake does not build or serve, or critest does not start.
pub fn run(request: &Request, upstream: &Upstream, dir: &Path, progress: &mut dyn Progress) -> Result<Vec<Outcome>> {
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    progress.step("the runtime in memory", 0);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let example = ["--quiet", "--locked", "--package", "cri", "--example", "fake"];
    output(Command::new(&cargo).current_dir(checkout()).arg("build").args(example)).context("build the fake")?;
    // Not below `dir`: a socket's path is short.
    let socket = std::env::temp_dir().join(format!("keelson-fake-{}.sock", std::process::id()));
    let mut serve = Command::new(cargo);
    serve.current_dir(checkout()).arg("run").args(example).arg("--").arg(&socket);
    let fake = spawn("fake", &mut serve, &dir.join("fake.log"))?;
    let outcomes = wait_for("the fake's socket", Duration::from_secs(60), || {
        ensure!(socket.exists(), "{} is not there", socket.display());
        Ok(())
    })
    .and_then(|()| critest(request, upstream, &socket, dir)?.run(upstream, progress));
    fake.stop(Duration::from_secs(5))?;
    std::fs::remove_file(&socket).with_context(|| format!("remove {}", socket.display()))?;
    outcomes
}

fn critest(request: &Request, upstream: &Upstream, socket: &Path, dir: &Path) -> Result<Run> {
    // ginkgo runs nothing with another ending.
    let program = dir.join("critest.test");
    symlink(upstream.program("critest"), &program).with_context(|| format!("link {}", program.display()))?;
    let endpoint = format!("unix://{}", socket.display());
    Ok(Run {
        what: "critest against cri::fake".into(),
        program,
        flags: vec![format!("-runtime-endpoint={endpoint}"), format!("-image-endpoint={endpoint}")],
        labels: String::new(),
        focus: CLAIMED.iter().map(|text| (*text).to_owned()).collect(),
        skip: Vec::new(),
        processes: request.processes,
        timeout: Duration::from_secs(600),
        netns: None,
        dir: dir.to_owned(),
    })
}
