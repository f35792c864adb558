//! Statistics of cgroup v1, from a folder in each controller's hierarchy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::parse::{Keyed, limit, number, optional, present};
use super::{Cpu, Depth, DeviceIo, Io, Memory, Stats, Tasks};
use crate::{Error, fs};

/// Reads a cgroup; `folder` gives its folder in a controller's hierarchy.
pub(crate) fn read(folder: impl Fn(&'static str) -> Option<PathBuf>, depth: Depth) -> Result<Stats, Error> {
    let required = |name| folder(name).ok_or(Error::MissingControllers { missing: vec![name] });
    let mut stats = Stats {
        memory: memory(&required("memory")?)?,
        cpu: Cpu { usage: number(&required("cpuacct")?.join("cpuacct.usage"))?, ..Cpu::default() },
        ..Stats::default()
    };
    if depth == Depth::Brief {
        return Ok(stats);
    }
    more_memory(&required("memory")?, &mut stats.memory)?;
    more_cpu(&required("cpu")?, &required("cpuacct")?, &mut stats.cpu)?;
    let pids = required("pids")?;
    // The hierarchy's top has neither file.
    stats.tasks = Tasks { current: optional(&pids.join("pids.current"))?, max: limit(&pids.join("pids.max"))? };
    if let Some(blkio) = folder("blkio") {
        stats.io = io(&blkio)?;
    }
    Ok(stats)
}

fn memory(folder: &Path) -> Result<Memory, Error> {
    let usage = number(&folder.join("memory.usage_in_bytes"))?;
    let stat = Keyed::read(&folder.join("memory.stat"))?;
    let inactive_file = stat.get("total_inactive_file");
    Ok(Memory {
        usage,
        working_set: usage.saturating_sub(inactive_file),
        rss: stat.get("total_rss"),
        cache: stat.get("total_cache"),
        mapped_file: stat.get("total_mapped_file"),
        active_file: stat.get("total_active_file"),
        inactive_file,
        swap: stat.get("total_swap"),
        page_faults: stat.get("pgfault"),
        major_page_faults: stat.get("pgmajfault"),
        limit: limit(&folder.join("memory.limit_in_bytes"))?,
        swap_limit: limit(&folder.join("memory.memsw.limit_in_bytes"))?,
        ..Memory::default()
    })
}

fn more_memory(folder: &Path, memory: &mut Memory) -> Result<(), Error> {
    memory.max_usage = optional(&folder.join("memory.max_usage_in_bytes"))?;
    memory.limit_hits = optional(&folder.join("memory.failcnt"))?;
    memory.kernel = optional(&folder.join("memory.kmem.usage_in_bytes"))?;
    memory.reservation = limit(&folder.join("memory.soft_limit_in_bytes"))?;
    memory.oom_kills = Keyed::optional(&folder.join("memory.oom_control"))?.get("oom_kill");
    Ok(())
}

fn more_cpu(cpu: &Path, cpuacct: &Path, out: &mut Cpu) -> Result<(), Error> {
    out.user = optional(&cpuacct.join("cpuacct.usage_user"))?;
    out.system = optional(&cpuacct.join("cpuacct.usage_sys"))?;
    let stat = Keyed::optional(&cpu.join("cpu.stat"))?;
    out.periods = stat.get("nr_periods");
    out.throttled_periods = stat.get("nr_throttled");
    out.throttled = stat.get("throttled_time");
    out.shares = optional(&cpu.join("cpu.shares"))?;
    out.quota = limit(&cpu.join("cpu.cfs_quota_us"))?;
    out.period = optional(&cpu.join("cpu.cfs_period_us"))?;
    Ok(())
}

fn io(folder: &Path) -> Result<Io, Error> {
    let mut devices = BTreeMap::new();
    let file = |name: &str| present(fs::read(&folder.join(format!("blkio.throttle.{name}_recursive"))));
    let bytes = file("io_service_bytes")?.unwrap_or_default();
    let count = file("io_serviced")?.unwrap_or_default();
    for (device, operation, value) in bytes.lines().filter_map(entry) {
        let device: &mut DeviceIo = devices.entry(device).or_default();
        match operation {
            "Read" => device.read_bytes = value,
            "Write" => device.written_bytes = value,
            _ => {}
        }
    }
    for (device, operation, value) in count.lines().filter_map(entry) {
        let device = devices.entry(device).or_default();
        match operation {
            "Read" => device.reads = value,
            "Write" => device.writes = value,
            _ => {}
        }
    }
    let devices = devices.into_iter().map(|((major, minor), io)| DeviceIo { major, minor, ..io }).collect();
    Ok(Io { devices, pressure: None })
}

/// `8:0 Read 4096`; totals have no device.
fn entry(line: &str) -> Option<((u32, u32), &str, u64)> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let operation = words.next()?;
    Some(((major.parse().ok()?, minor.parse().ok()?), operation, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_files_are_read() {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("memory.usage_in_bytes", "1000\n"),
            ("memory.stat", "cache 1\nrss 2\ntotal_rss 300\ntotal_inactive_file 400\npgfault 9\n"),
            ("memory.limit_in_bytes", "4096\n"),
            ("memory.memsw.limit_in_bytes", "9223372036854771712\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("cpuacct.usage", "7000\n"),
            ("cpu.stat", "nr_periods 10\nnr_throttled 3\nthrottled_time 5\n"),
            ("cpu.cfs_quota_us", "-1\n"),
            ("cpu.cfs_period_us", "100000\n"),
            ("pids.current", "4\n"),
            ("pids.max", "max\n"),
            ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 512\n8:0 Write 1024\n8:0 Total 1536\nTotal 1536\n"),
            ("blkio.throttle.io_serviced_recursive", "8:0 Read 1\n8:0 Write 2\nTotal 3\n"),
        ] {
            std::fs::write(root.path().join(file), text).unwrap();
        }
        let stats = read(|_| Some(root.path().to_owned()), Depth::Full).unwrap();
        assert_eq!((stats.memory.working_set, stats.memory.rss, stats.memory.page_faults), (600, 300, 9));
        assert_eq!((stats.memory.limit, stats.memory.swap_limit), (Some(4096), None));
        assert_eq!(stats.memory.available(), Some(3496));
        assert_eq!(stats.memory.oom_kills, 2);
        assert_eq!((stats.cpu.usage, stats.cpu.throttled_periods, stats.cpu.quota), (7000, 3, None));
        assert_eq!(stats.tasks, Tasks { current: 4, max: None });
        let device = DeviceIo { major: 8, minor: 0, reads: 1, read_bytes: 512, writes: 2, written_bytes: 1024 };
        assert_eq!(stats.io.devices, [device]);
    }
}
