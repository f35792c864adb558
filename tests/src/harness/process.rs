//! Programs that go on when we end, and are found again.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::shell::wait_for;

/// A process that we started: its pid, and when it was started, since pids are used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub name: String,
    pub pid: i32,
    started: u64,
}

/// Starts a program in a session of its own, printing into `log`.
///
/// # Errors
/// When the log cannot be opened or the program not started.
pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    let out = File::options().create(true).append(true).open(log).with_context(|| format!("open {}", log.display()))?;
    let err = out.try_clone()?;
    let child = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {name}: {}", command.get_program().to_string_lossy()))?;
    let pid = i32::try_from(child.id()).context("pid")?;
    let started = start_time(pid).with_context(|| format!("{name} ended at once; see {}", log.display()))?;
    // Reaped by a thread for as long as we live, and by init afterwards: a dead child must not look alive.
    std::thread::spawn(move || {
        let mut child = child;
        let _ = child.wait();
    });
    Ok(Process { name: name.to_owned(), pid, started })
}

impl Process {
    #[must_use]
    pub fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// It acts for a node: it must end before the node's pods do.
    #[must_use]
    pub fn is_node(&self) -> bool {
        ["agent-", "kubelet-", "kube-proxy-"].iter().any(|p| self.name.starts_with(p))
    }

    /// Sends a signal, unless the process is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.alive() {
            kill(Pid::from_raw(self.pid), signal)
                .with_context(|| format!("{signal} to {} ({})", self.name, self.pid))?;
        }
        Ok(())
    }

    /// SIGTERM, and SIGKILL after `grace`.
    ///
    /// # Errors
    /// When it is there even then.
    pub fn stop(&self, grace: Duration) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        if self.gone(grace).is_err() {
            self.signal(Signal::SIGKILL)?;
            self.gone(Duration::from_secs(10))?;
        }
        Ok(())
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.gone(Duration::from_secs(10))
    }

    fn gone(&self, time: Duration) -> Result<()> {
        wait_for(&format!("{} ({}) to end", self.name, self.pid), time, || {
            anyhow::ensure!(!self.alive(), "{} is alive", self.name);
            Ok(())
        })
    }
}

/// Clock ticks between boot and the start of a process that lives (field 22 of /proc/PID/stat). A zombie counts as gone, once
/// the last of its threads (field 20) has ended: until then it holds its sockets and locks.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let dead = matches!(*fields.first()?, "Z" | "X");
    let threads: u32 = fields.get(17)?.parse().ok()?;
    (!dead || threads > 1).then(|| fields.get(19)?.parse().ok())?
}
