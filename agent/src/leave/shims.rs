//! Processes that the runtime keeps for each sandbox, and forgets where they were too slow to answer when it was started anew
//! (containerd gives them five seconds): nobody else would end them.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::say;

/// How long one may take that ends by itself.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// Waits for those of `sandboxes`, which are gone, and kills what stays.
pub(super) async fn end(sandboxes: &HashSet<String>) {
    // What it fails with is that they do not end in time: that is what comes next.
    let _ = tokio::time::timeout(PATIENCE, async {
        while !of(sandboxes).is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
    for pid in of(sandboxes) {
        say(&format!("killing process {pid}, which the runtime has forgotten"));
        if let Err(error) = kill(pid, Signal::SIGKILL) {
            say(&format!("process {pid}: {error}"));
        }
    }
}

fn of(sandboxes: &HashSet<String>) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| is_of(&line, sandboxes)))
        .map(Pid::from_raw)
        .collect()
}

/// Whether this command line is `containerd-shim… … -id SANDBOX …`.
fn is_of(line: &[u8], sandboxes: &HashSet<String>) -> bool {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split('\0');
    let program = words.next().and_then(|path| Path::new(path).file_name()).unwrap_or_default();
    let id = words.skip_while(|word| *word != "-id").nth(1);
    program.to_string_lossy().starts_with("containerd-shim") && id.is_some_and(|id| sandboxes.contains(id))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn those_of_sandboxes_that_are_gone_are_killed() {
        let shim = |id: &str| {
            let mut shell = Command::new("sh");
            shell.arg0("/usr/bin/containerd-shim-runc-v2").args(["-c", "read line", "-", "-id", id]);
            shell.stdin(std::process::Stdio::piped()).spawn().unwrap()
        };
        let (mut ours, mut other) = (shim("a1"), shim("b2"));
        // Waiting would close it, and the shell end.
        let _input = ours.stdin.take();
        let ended = tokio::spawn(async { end(&["a1".to_owned()].into()).await });
        let status = tokio::task::spawn_blocking(move || ours.wait().unwrap()).await.unwrap();
        ended.await.unwrap();
        assert_eq!(status.signal(), Some(9));
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
