//! Statistics of cgroup v2, from one folder.

use std::path::Path;

use super::parse::{Keyed, limit, number, optional, present, pressure};
use super::{Cpu, Depth, DeviceIo, Io, Memory, Stats, Tasks};
use crate::{Error, fs};

/// Reads a cgroup.
pub(crate) fn read(folder: &Path, depth: Depth) -> Result<Stats, Error> {
    let mut stats = Stats { cpu: cpu(folder)?, memory: memory(folder)?, ..Stats::default() };
    if depth == Depth::Brief {
        return Ok(stats);
    }
    more_cpu(folder, &mut stats.cpu)?;
    more_memory(folder, &mut stats.memory)?;
    // The hierarchy's top has neither file.
    stats.tasks = Tasks { current: optional(&folder.join("pids.current"))?, max: limit(&folder.join("pids.max"))? };
    let lines = present(fs::read(&folder.join("io.stat")))?.unwrap_or_default();
    stats.io =
        Io { devices: lines.lines().filter_map(device).collect(), pressure: pressure(&folder.join("io.pressure"))? };
    Ok(stats)
}

fn cpu(folder: &Path) -> Result<Cpu, Error> {
    let stat = Keyed::read(&folder.join("cpu.stat"))?;
    let nanos = |key| stat.get(key).saturating_mul(1000);
    Ok(Cpu {
        usage: nanos("usage_usec"),
        user: nanos("user_usec"),
        system: nanos("system_usec"),
        periods: stat.get("nr_periods"),
        throttled_periods: stat.get("nr_throttled"),
        throttled: nanos("throttled_usec"),
        ..Cpu::default()
    })
}

fn more_cpu(folder: &Path, cpu: &mut Cpu) -> Result<(), Error> {
    cpu.shares = shares(optional(&folder.join("cpu.weight"))?);
    let max = present(fs::read(&folder.join("cpu.max")))?.unwrap_or_default();
    let (quota, period) = max.trim().split_once(' ').unwrap_or_default();
    cpu.quota = quota.parse().ok();
    cpu.period = period.parse().unwrap_or(0);
    cpu.pressure = pressure(&folder.join("cpu.pressure"))?;
    Ok(())
}

/// cAdvisor's conversion of `cpu.weight` (1 to 10,000) to `cpu.shares` (2 to 262,144).
fn shares(weight: u64) -> u64 {
    if weight == 0 { 0 } else { 2 + (weight - 1) * 262_142 / 9999 }
}

fn memory(folder: &Path) -> Result<Memory, Error> {
    let stat = Keyed::read(&folder.join("memory.stat"))?;
    let inactive_file = stat.get("inactive_file");
    let (usage, swap) = match present(number(&folder.join("memory.current")))? {
        Some(usage) => (usage, optional(&folder.join("memory.swap.current"))?),
        // The hierarchy's top has no such file: it is the machine.
        None => machine()?,
    };
    Ok(Memory {
        usage,
        working_set: usage.saturating_sub(inactive_file),
        rss: stat.get("anon"),
        cache: stat.get("file"),
        mapped_file: stat.get("file_mapped"),
        active_file: stat.get("active_file"),
        inactive_file,
        kernel: stat.get("kernel"),
        swap,
        page_faults: stat.get("pgfault"),
        major_page_faults: stat.get("pgmajfault"),
        limit: limit(&folder.join("memory.max"))?,
        swap_limit: limit(&folder.join("memory.swap.max"))?,
        ..Memory::default()
    })
}

/// Memory and swap that are used on the machine, in bytes.
fn machine() -> Result<(u64, u64), Error> {
    let path = Path::new("/proc/meminfo");
    let text = fs::read(path)?;
    let bytes = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
        kib.map_or(0, |kib| kib.saturating_mul(1024))
    };
    let used = |total: &str, free: &str| bytes(total).saturating_sub(bytes(free));
    Ok((used("MemTotal", "MemFree"), used("SwapTotal", "SwapFree")))
}

fn more_memory(folder: &Path, memory: &mut Memory) -> Result<(), Error> {
    memory.max_usage = optional(&folder.join("memory.peak"))?;
    memory.reservation = limit(&folder.join("memory.min"))?.filter(|kept| *kept > 0);
    memory.oom_kills = Keyed::optional(&folder.join("memory.events"))?.get("oom_kill");
    memory.pressure = pressure(&folder.join("memory.pressure"))?;
    Ok(())
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn device(line: &str) -> Option<DeviceIo> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let mut device = DeviceIo { major: major.parse().ok()?, minor: minor.parse().ok()?, ..DeviceIo::default() };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        let value = value.parse().unwrap_or(0);
        match key {
            "rbytes" => device.read_bytes = value,
            "wbytes" => device.written_bytes = value,
            "rios" => device.reads = value,
            "wios" => device.writes = value,
            _ => {}
        }
    }
    Some(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_containers_files_are_read() {
        let folder = folder(&[
            ("memory.current", "1000\n"),
            ("memory.stat", "anon 5\nfile 6\ninactive_file 400\npgmajfault 1\n"),
            ("memory.max", "max\n"),
            ("memory.events", "oom 3\noom_kill 2\n"),
            (
                "memory.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=3\nfull avg10=0 avg60=0 avg300=0 total=2\n",
            ),
            ("cpu.stat", "usage_usec 7\nuser_usec 3\nnr_periods 8\nthrottled_usec 2\n"),
            ("cpu.max", "50000 100000\n"),
            ("cpu.weight", "1\n"),
            ("pids.current", "3\n"),
            ("pids.max", "100\n"),
            ("io.stat", "8:0 rbytes=512 wbytes=1024 rios=1 wios=2 dbytes=0 dios=0\n8:16\n"),
        ]);
        let stats = read(folder.path(), Depth::Full).unwrap();
        assert_eq!((stats.memory.usage, stats.memory.working_set, stats.memory.rss), (1000, 600, 5));
        assert_eq!((stats.memory.limit, stats.memory.oom_kills), (None, 2));
        assert_eq!(stats.memory.pressure.unwrap().full.total, 2);
        assert_eq!((stats.cpu.usage, stats.cpu.throttled, stats.cpu.periods), (7000, 2000, 8));
        assert_eq!((stats.cpu.shares, stats.cpu.quota, stats.cpu.period), (2, Some(50_000), 100_000));
        assert_eq!(stats.tasks, Tasks { current: 3, max: Some(100) });
        assert_eq!(stats.io.devices[0].written_bytes, 1024);
        let brief = read(folder.path(), Depth::Brief).unwrap();
        assert_eq!((brief.memory.usage, brief.tasks.current, brief.memory.oom_kills), (1000, 0, 0));
    }

    #[test]
    fn the_top_is_the_machine() {
        let folder = folder(&[("memory.stat", "anon 5\ninactive_file 1\n"), ("cpu.stat", "usage_usec 7\n")]);
        let stats = read(folder.path(), Depth::Full).unwrap();
        assert!(stats.memory.usage > 0 && stats.memory.working_set == stats.memory.usage - 1);
        assert!(read(&folder.path().join("none"), Depth::Brief).is_err());
    }
}
