//! What the processes of a container have open.

use std::fs;
use std::path::PathBuf;

/// Processes of one cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Processes {
    pub count: u64,
    /// Open files; only where asked for.
    pub files: u64,
    /// Sockets among them.
    pub sockets: u64,
    /// The oldest process.
    pub first: Option<i32>,
    /// Files that it may open.
    pub max_files: Option<u64>,
}

/// How many there are.
pub(super) fn count(pids: &[i32]) -> Processes {
    // 0 stands for a process of another pid namespace.
    let first = pids.iter().copied().filter(|pid| *pid > 0).min();
    Processes { count: pids.len() as u64, first, ..Processes::default() }
}

/// Everything. Processes that end meanwhile have nothing open.
pub(super) fn look(pids: &[i32]) -> Processes {
    let mut processes = count(pids);
    for pid in pids {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for file in open.flatten() {
            processes.files += 1;
            let target = fs::read_link(file.path()).unwrap_or_else(|_| PathBuf::new());
            processes.sockets += u64::from(target.as_os_str().to_string_lossy().starts_with("socket:"));
        }
    }
    let limits = processes.first.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/limits")).ok());
    processes.max_files = limits.as_deref().and_then(max_files);
    processes
}

/// The soft limit of a line `Max open files  1024  4096  files`; `None` for no limit.
fn max_files(limits: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_files_and_a_limit() {
        let me = i32::try_from(std::process::id()).unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let found = look(&[me, i32::MAX]);
        assert_eq!((found.count, found.first), (2, Some(me)));
        assert!(found.files > 2 && found.sockets >= 1 && found.max_files.is_some(), "{found:?}");
        drop(socket);
        assert_eq!(max_files("Max open files            unlimited            unlimited            files"), None);
    }
}
