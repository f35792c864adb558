//! What processes take: proportional set size, and CPU over a while.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::time::ClockId;
use nix::unistd::Pid;

use crate::harness::process::Process;

/// Of some processes together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    pub pss_mib: f64,
    /// Per cent of one core.
    pub cpu_percent: f64,
}

/// Watches groups of processes for a while; a cost for each group. Children of theirs do not count.
///
/// # Errors
/// When one of them ends.
pub fn over(groups: &[&[Process]], time: Duration) -> Result<Vec<Cost>> {
    let start = Instant::now();
    let before = groups.iter().map(|group| used(group)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(time);
    let watched = start.elapsed();
    groups
        .iter()
        .zip(before)
        .map(|(group, before)| {
            let cpu = used(group)?.saturating_sub(before);
            Ok(Cost { pss_mib: pss(group)?, cpu_percent: cpu.as_secs_f64() / watched.as_secs_f64() * 100.0 })
        })
        .collect()
}

/// CPU time since they were started. The kernel's clock of a process counts nanoseconds, where /proc has hundredths of a second: too
/// coarse for a process that is idle.
fn used(group: &[Process]) -> Result<Duration> {
    group
        .iter()
        .map(|process| {
            let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(process.pid));
            let now = clock.and_then(ClockId::now).with_context(|| format!("{} has ended", process.name))?;
            Ok(Duration::from(now))
        })
        .sum()
}

/// Their memory in MiB, each page shared out among all processes that have it.
///
/// # Errors
/// When one of them has ended.
#[allow(clippy::cast_precision_loss)] // kilobytes of a few processes
pub fn pss(group: &[Process]) -> Result<f64> {
    let kib: u64 = group.iter().map(pss_kib).sum::<Result<u64>>()?;
    Ok(kib as f64 / 1024.0)
}

fn pss_kib(process: &Process) -> Result<u64> {
    let path = format!("/proc/{}/smaps_rollup", process.pid);
    let rollup = fs::read_to_string(path).with_context(|| format!("memory of {}", process.name))?;
    let line = rollup.lines().find_map(|l| l.strip_prefix("Pss:")).context("smaps_rollup has no Pss")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
