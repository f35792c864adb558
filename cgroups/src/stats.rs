//! What is read back from a cgroup.

use std::path::Path;

use crate::Error;
use crate::fs;

/// Use of one cgroup, everything below it included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Bytes, page cache included.
    pub memory_usage: u64,
    /// Bytes that cannot be given back easily: usage less inactive page cache (cAdvisor's rule).
    pub memory_working_set: u64,
    /// CPU time since the cgroup was made, in nanoseconds.
    pub cpu_usage_nanos: u64,
    /// Processes that the kernel killed here for want of memory.
    pub oom_kills: u64,
}

/// A cgroup v2 folder's.
pub(crate) fn read_v2(folder: &Path) -> Result<Stats, Error> {
    let usage = number(&folder.join("memory.current"))?;
    Ok(Stats {
        memory_usage: usage,
        memory_working_set: usage.saturating_sub(keyed(&folder.join("memory.stat"), "inactive_file")?),
        cpu_usage_nanos: keyed(&folder.join("cpu.stat"), "usage_usec")?.saturating_mul(1000),
        oom_kills: keyed(&folder.join("memory.events"), "oom_kill")?,
    })
}

/// A cgroup v1's, from its folders in the memory and cpuacct hierarchies.
pub(crate) fn read_v1(memory: &Path, cpuacct: &Path) -> Result<Stats, Error> {
    let usage = number(&memory.join("memory.usage_in_bytes"))?;
    Ok(Stats {
        memory_usage: usage,
        memory_working_set: usage.saturating_sub(keyed(&memory.join("memory.stat"), "total_inactive_file")?),
        cpu_usage_nanos: number(&cpuacct.join("cpuacct.usage"))?,
        oom_kills: keyed(&memory.join("memory.oom_control"), "oom_kill")?,
    })
}

fn number(path: &Path) -> Result<u64, Error> {
    let text = fs::read(path)?;
    text.trim().parse().map_err(|_| Error::Format { path: path.into(), content: text.clone() })
}

/// The value of `key` in a file of `key value` lines.
fn keyed(path: &Path, key: &str) -> Result<u64, Error> {
    let text = fs::read(path)?;
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| Error::Format { path: path.into(), content: text.clone() })
}
