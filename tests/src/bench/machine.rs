//! What machine this is, and how busy.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The machine in a line: processor, memory, system, kernel, cgroup version.
///
/// # Errors
/// When /proc does not say.
pub fn describe() -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = field(&cpu, "model name").unwrap_or("unknown processor");
    let cores = thread::available_parallelism()?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kib: u64 = field(&memory, "MemTotal").and_then(|v| v.trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown system");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cgroup = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1" };
    Ok(format!(
        "{cores} cores of {model}, {} GiB, {}, kernel {}, cgroup {cgroup}",
        kib.div_ceil(1 << 20),
        system.trim_matches('"'),
        kernel.trim()
    ))
}

/// The value of a `name : value` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim()))
}

/// How much of all processors others use, in per cent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Busy {
    /// What competes with a measurement.
    pub percent: f64,
    /// Niced programs' own time: they give way, and take caches and little else.
    pub niced: f64,
}

impl Busy {
    /// How busy all processors are while this waits.
    ///
    /// # Errors
    /// When /proc/stat is not what it used to be.
    pub fn now(time: Duration) -> Result<Self> {
        let before = Ticks::now()?;
        thread::sleep(time);
        Ok(Ticks::now()?.busy_since(before))
    }

    /// The busiest of several moments.
    #[must_use]
    pub fn worst(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::default(), |worst, one| Self {
            percent: worst.percent.max(one.percent),
            niced: worst.niced.max(one.niced),
        })
    }
}

/// Of all processors since boot.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    niced: u64,
    idle: u64,
    all: u64,
}

impl Ticks {
    fn now() -> Result<Self> {
        Self::read(&fs::read_to_string("/proc/stat")?)
    }

    /// user nice system idle iowait irq softirq steal …; guests are counted in the first two.
    fn read(stat: &str) -> Result<Self> {
        let line =
            stat.lines().find_map(|l| l.strip_prefix("cpu ")).context("/proc/stat has no line of all processors")?;
        let ticks: Vec<u64> = line.split_whitespace().take(8).filter_map(|t| t.parse().ok()).collect();
        let idle = ticks.iter().skip(3).take(2).sum();
        Ok(Self { niced: ticks.get(1).copied().unwrap_or_default(), idle, all: ticks.iter().sum() })
    }

    #[allow(clippy::cast_precision_loss)] // ticks of seconds
    fn busy_since(self, before: Self) -> Busy {
        let all = self.all.saturating_sub(before.all).max(1);
        let idle = self.idle.saturating_sub(before.idle).min(all);
        let niced = self.niced.saturating_sub(before.niced).min(all - idle);
        let percent = |ticks: u64| ticks as f64 / all as f64 * 100.0;
        Busy { percent: percent(all - idle - niced), niced: percent(niced) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_the_disk_nor_niced_programs_count_as_busy() {
        let before = Ticks::read("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1 1 1\n").unwrap();
        let after = Ticks::read("cpu  110 5 110 855 20 0 0 0 0 0\n").unwrap();
        let busy = after.busy_since(before);
        assert!((busy.percent - 20.0).abs() < 1e-9 && (busy.niced - 5.0).abs() < 1e-9, "{busy:?}");
        assert!(Ticks::read("intr 1\n").is_err());
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "model\t\t: 1\nmodel name\t: A CPU\nMemTotal:       32 kB\n";
        assert_eq!((field(text, "model name"), field(text, "MemTotal")), (Some("A CPU"), Some("32 kB")));
    }

    #[test]
    fn this_machine_is_described() {
        let said = describe().unwrap();
        assert!(said.contains("cores of") && said.contains("kernel"), "{said}");
    }
}
