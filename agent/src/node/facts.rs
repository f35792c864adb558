//! What this machine is, read from the places that kubelet and cAdvisor read.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

/// The version that nodes report: Kubernetes' release whose behaviour is followed, then our own, so that version
/// parsers (kubeadm, e2e) see the first and people both.
pub const KUBELET_VERSION: &str = concat!("v1.36.3-keelson.", env!("CARGO_PKG_VERSION"));

/// What does not change while the agent runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's UUID, or the machine id where there is none.
    pub system_uuid: String,
    /// Changes with every boot.
    pub boot_id: String,
    /// `uname -r`.
    pub kernel_version: String,
    /// `PRETTY_NAME` of os-release.
    pub os_image: String,
    /// CPUs that are online.
    pub cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of swap.
    pub swap: u64,
    /// Size of a huge page in KiB, and bytes of such pages.
    pub hugepages: Vec<(u64, u64)>,
}

/// Go's name of this machine's architecture.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Reads the facts below `root` (`/` but in tests). What cannot be read stays empty.
#[must_use]
pub fn read(root: &Path) -> Facts {
    let machine_id = first(root, &["etc/machine-id", "var/lib/dbus/machine-id"]);
    let system_uuid = match first(root, &["sys/class/dmi/id/product_uuid", "proc/device-tree/vm,uuid"]) {
        uuid if uuid.is_empty() => machine_id.clone(),
        uuid => uuid.trim_end_matches('\0').to_lowercase(),
    };
    let meminfo = text(root, "proc/meminfo");
    Facts {
        machine_id,
        system_uuid,
        boot_id: first(root, &["proc/sys/kernel/random/boot_id"]),
        kernel_version: first(root, &["proc/sys/kernel/osrelease"]),
        os_image: os_image(&text(root, "etc/os-release")),
        cpus: cpus(&first(root, &["sys/devices/system/cpu/online"])),
        memory: meminfo_bytes(&meminfo, "MemTotal"),
        swap: meminfo_bytes(&meminfo, "SwapTotal"),
        hugepages: hugepages(root),
    }
}

fn text(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_default()
}

fn first(root: &Path, paths: &[&str]) -> String {
    paths.iter().map(|path| text(root, path).trim().to_owned()).find(|text| !text.is_empty()).unwrap_or_default()
}

fn os_image(os_release: &str) -> String {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.map_or("Linux", |v| v.trim().trim_matches('"')).to_owned()
}

/// Counts a list such as `0-3,5`.
fn cpus(list: &str) -> u64 {
    let count: u64 = list
        .split(',')
        .filter_map(|range| {
            let (low, high) = range.split_once('-').unwrap_or((range, range));
            let (low, high): (u64, u64) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
            Some(high.saturating_sub(low).saturating_add(1))
        })
        .sum();
    if count > 0 { count } else { std::thread::available_parallelism().map_or(1, |n| n.get() as u64) }
}

/// A value of `/proc/meminfo`, in bytes.
#[must_use]
pub fn meminfo_bytes(meminfo: &str, name: &str) -> u64 {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib.saturating_mul(1024))
}

fn hugepages(root: &Path) -> Vec<(u64, u64)> {
    let dir = root.join("sys/kernel/mm/hugepages");
    let mut sizes: Vec<(u64, u64)> = fs::read_dir(&dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let kib: u64 = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let pages: u64 = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
            Some((kib, pages.saturating_mul(kib).saturating_mul(1024)))
        })
        .collect();
    sizes.sort_unstable();
    sizes
}

/// Use of a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filesystem {
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes that are free for us.
    pub available: u64,
    /// Bytes that are taken.
    pub used: u64,
    /// Inodes in all; 0 where the filesystem has no such limit.
    pub inodes: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
}

/// Asks about the filesystem that holds `path`, or the nearest folder above it that exists.
#[must_use]
pub fn filesystem(path: &Path) -> Option<Filesystem> {
    let mut path: PathBuf = path.to_owned();
    while !path.exists() {
        if !path.pop() {
            return None;
        }
    }
    let stat = statvfs(&path).ok()?;
    let unit = stat.fragment_size();
    Some(Filesystem {
        capacity: stat.blocks().saturating_mul(unit),
        available: stat.blocks_available().saturating_mul(unit),
        used: stat.blocks().saturating_sub(stat.blocks_free()).saturating_mul(unit),
        inodes: stat.files(),
        inodes_free: stat.files_free(),
    })
}

/// Threads there are and threads there may be.
#[must_use]
pub fn pids(root: &Path) -> Option<(u64, u64)> {
    let limit = |file: &str| text(root, &format!("proc/sys/kernel/{file}")).trim().parse::<u64>().ok();
    let max = limit("pid_max").into_iter().chain(limit("threads-max")).min()?;
    // "0.01 0.02 0.03 2/345 6789": running and existing scheduling entities.
    let loadavg = text(root, "proc/loadavg");
    let existing = loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some((existing, max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_machine_says() {
        let root = std::env::temp_dir().join(format!("keelson-facts-{}", std::process::id()));
        for (path, content) in [
            ("etc/machine-id", "abc\n"),
            ("etc/os-release", "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n"),
            ("proc/meminfo", "MemTotal:       24683704 kB\nMemFree: 1 kB\nSwapTotal: 0 kB\n"),
            ("proc/sys/kernel/osrelease", "6.18.0\n"),
            ("sys/devices/system/cpu/online", "0-3,5\n"),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "3\n"),
            ("proc/sys/kernel/pid_max", "4194304\n"),
            ("proc/sys/kernel/threads-max", "192598\n"),
            ("proc/loadavg", "0.1 0.2 0.3 2/345 6789\n"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let facts = read(&root);
        let threads = pids(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(facts.machine_id, "abc");
        assert_eq!(facts.system_uuid, "abc");
        assert_eq!(facts.os_image, "Debian GNU/Linux 13 (trixie)");
        assert_eq!((facts.cpus, facts.memory), (5, 24_683_704 * 1024));
        assert_eq!(facts.hugepages, [(2048, 3 * 2048 * 1024)]);
        assert_eq!(threads, Some((345, 192_598)));
    }

    #[test]
    fn this_machine_has_memory_and_a_disk() {
        let facts = read(Path::new("/"));
        assert!(facts.memory > 0 && facts.cpus > 0 && !facts.boot_id.is_empty(), "{facts:?}");
        assert!(filesystem(Path::new("/no/such/folder")).unwrap().capacity > 0);
    }
}
