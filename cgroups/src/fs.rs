//! File operations that both versions share. A cgroup's control files are not removed: removing the folder does it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Error;

/// How long processes get to vanish after SIGKILL: the kernel is quick unless one hangs in the disk.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

pub fn create(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => Err(Error::Create { path: path.into(), source }),
        _ => Ok(()),
    }
}

pub fn write(path: &Path, value: &str) -> Result<(), Error> {
    fs::write(path, value).map_err(|source| Error::Write { path: path.into(), value: value.into(), source })
}

pub fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })
}

/// Folders directly below; none where there is nothing.
pub fn children(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let fail = |source: io::Error| Error::Read { path: path.into(), source };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        if entry.file_type().map_err(fail)?.is_dir() {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

/// The cgroup and all below it, the deepest first.
pub fn bottom_up(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut stack = vec![path.to_path_buf()];
    let mut found = Vec::new();
    while let Some(next) = stack.pop() {
        stack.extend(children(&next)?);
        found.push(next);
    }
    found.reverse();
    Ok(found)
}

/// Processes of the cgroup and all below it.
pub fn pids(path: &Path) -> Result<Vec<i32>, Error> {
    let mut found = Vec::new();
    for folder in bottom_up(path)? {
        let file = folder.join("cgroup.procs");
        match fs::read_to_string(&file) {
            Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
            // Gone meanwhile (ENODEV when the folder went while the file was open).
            Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(nix::libc::ENODEV) => {}
            Err(source) => return Err(Error::Read { path: file, source }),
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// SIGKILL to all in the cgroup, until none is left.
pub fn kill_all(path: &Path) -> Result<(), Error> {
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        let left = pids(path)?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::Busy { path: path.into(), pids: left });
        }
        for pid in left {
            // 0 is a process of another pid namespace: kill(0) would be ourselves.
            if pid > 0 {
                // Whether it was there is seen in the next round.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        thread::sleep(PAUSE);
    }
}

/// Removes the cgroup and all below it.
pub fn remove(path: &Path) -> Result<(), Error> {
    for folder in bottom_up(path)? {
        remove_one(&folder)?;
    }
    Ok(())
}

fn remove_one(path: &Path) -> Result<(), Error> {
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            // A process that was killed holds its cgroup until it is reaped.
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) && Instant::now() < deadline => {
                thread::sleep(PAUSE);
            }
            Err(source) => return Err(Error::Remove { path: path.into(), source }),
        }
    }
}
