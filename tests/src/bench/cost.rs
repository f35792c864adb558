//! What processes take: proportional set size, and CPU over a while.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Of one process.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub pss_mib: f64,
    /// Per cent of one core.
    pub cpu_percent: f64,
}

/// Watches processes for a while; the costs are in their order.
///
/// # Errors
/// When one ends.
#[allow(clippy::cast_precision_loss)] // ticks and kilobytes of a short run
pub fn over(pids: &[i32], time: Duration) -> Result<Vec<Cost>> {
    let before = pids.iter().map(|p| ticks(*p)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(time);
    let per_second = 100.0;
    pids.iter()
        .zip(before)
        .map(|(pid, before)| {
            let used = ticks(*pid)?.saturating_sub(before) as f64 / per_second;
            Ok(Cost { pss_mib: pss_kib(*pid)? as f64 / 1024.0, cpu_percent: used / time.as_secs_f64() * 100.0 })
        })
        .collect()
}

/// utime + stime, in hundredths of a second.
fn ticks(pid: i32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} has ended"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |s| s.1).split_whitespace().collect();
    let field = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    Ok(field(11) + field(12))
}

fn pss_kib(pid: i32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).with_context(|| format!("memory of {pid}"))?;
    let line = rollup.lines().find_map(|l| l.strip_prefix("Pss:")).context("smaps_rollup has no Pss")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
