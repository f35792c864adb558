//! What tests of test/e2e_node ask of systemd about the node's agent. Hosts here are network namespaces without a systemd: stand-ins for
//! `sudo` and `systemctl` lead to this file, which ends and starts the agent as a unit would be.
//!
//! ```text
//! e2e_node.test -> sudo systemctl restart kubelet-keelson -> xtask conformance --unit restart -> the harness
//! ```

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{layout, suite::Against};
use crate::harness::{Cluster, Layout};

/// The suite finds a kubelet's unit by this shape of name.
const NAME: &str = "kubelet-keelson";
const NODE: &str = "n1";
const PROCESS: &str = "agent-n1";
/// The suite writes configurations there, in the folder that it runs in.
const CONFIG: &str = "kubelet-config";
/// As long as a unit has.
const STOP: Duration = Duration::from_secs(90);

/// What `systemctl` is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Whether it runs.
    Running,
    /// `SIGTERM`, and no new start.
    Kill,
    /// An end, if it runs, and a start.
    Restart,
}

impl FromStr for Ask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "running" => Ok(Self::Running),
            "kill" => Ok(Self::Kill),
            "restart" => Ok(Self::Restart),
            other => Err(format!("a unit cannot be asked for {other:?}: there are running, kill and restart")),
        }
    }
}

/// Does what was asked.
///
/// # Errors
/// When there is no such cluster, or the agent does not end or start; for [`Ask::Running`], when it does not run.
pub fn serve(against: Against, ask: Ask) -> Result<()> {
    let mut cluster = Cluster::adopt(layout(against))?.context("no cluster of this kind is here")?;
    let agent = cluster.process(PROCESS);
    match ask {
        Ask::Running => anyhow::ensure!(agent?.alive(), "the agent does not run"),
        Ask::Kill => agent?.stop(STOP)?,
        Ask::Restart => {
            if let Ok(agent) = agent {
                agent.stop(STOP)?;
            }
            cluster.run_agent(NODE)?;
        }
    }
    Ok(())
}

/// Where a run of the suite finds them.
#[derive(Debug)]
pub struct StandIns {
    /// `sudo` and `systemctl`, to be looked in first.
    pub bin: PathBuf,
    /// The suite under a name in a folder of its own, where it finds the agent's configuration.
    pub program: PathBuf,
}

/// Writes the stand-ins below `dir`.
///
/// # Errors
/// When a file cannot be written.
pub fn stand_ins(dir: &Path, layout: &Layout, against: Against, program: &Path) -> Result<StandIns> {
    let (bin, work) = (dir.join("bin"), dir.join("work"));
    for folder in [&bin, &work] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let xtask = std::env::current_exe()?;
    script(&bin.join("sudo"), "exec \"$@\"\n")?;
    script(&bin.join("systemctl"), &systemctl(&xtask, against)?)?;
    let suite = work.join("e2e_node.test");
    link(program, &suite)?;
    link(&layout.host(NODE).dir().join("etc/agent.yaml"), &work.join(CONFIG))?;
    Ok(StandIns { bin, program: suite })
}

fn systemctl(xtask: &Path, against: Against) -> Result<String> {
    let ask = format!("'{}' conformance --against '{against}' --unit", xtask.display());
    let mut text = String::new();
    writeln!(text, "case \"$1\" in")?;
    writeln!(
        text,
        "list-units) case \"$*\" in *--state=running*) {ask} running || exit 0;; esac; echo {NAME}.service;;"
    )?;
    writeln!(text, "reset-failed) ;;")?;
    writeln!(text, "kill|stop) exec {ask} kill;;")?;
    writeln!(text, "start|restart) exec {ask} restart;;")?;
    writeln!(text, "*) echo \"no systemd is here: $*\" >&2; exit 1;;")?;
    writeln!(text, "esac")?;
    Ok(text)
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{text}")).with_context(|| format!("write {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

fn link(to: &Path, at: &Path) -> Result<()> {
    if at.is_symlink() {
        fs::remove_file(at)?;
    }
    symlink(to, at).with_context(|| format!("link {}", at.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::shell::output;
    use std::process::Command;

    #[test]
    fn what_the_suite_says_reaches_the_harness() {
        let dir = tempfile::tempdir().unwrap();
        let tool = dir.path().join("systemctl");
        let say = |xtask: &str, words: &str| {
            script(&tool, &systemctl(Path::new(xtask), Against::Ours).unwrap()).unwrap();
            output(Command::new(&tool).args(words.split(' ')))
        };
        let restarted = say("/bin/echo", "restart kubelet-keelson").unwrap();
        assert_eq!(restarted.trim(), "conformance --against ours --unit restart");
        assert!(say("/bin/echo", "kill kubelet-keelson").unwrap().ends_with("--unit kill\n"));
        assert_eq!(say("/bin/true", "list-units *kubelet* --state=running").unwrap(), "kubelet-keelson.service\n");
        assert_eq!(say("/bin/false", "list-units *kubelet* --state=running").unwrap(), "");
        assert_eq!(say("/bin/false", "list-units *kubelet*").unwrap(), "kubelet-keelson.service\n");
        assert!(say("/bin/true", "mask --now locksmithd").is_err());
        assert!("stop".parse::<Ask>().is_err());
    }
}
