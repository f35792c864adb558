//! What a machine has that is in the way of a node: [`look`] gathers it, [`judge`] says what to do about it, and what a command can do,
//! `--fix` does.

pub(super) mod containerd;
mod judge;
mod look;

use std::process::Command;

use judge::Problem;
pub(super) use look::look;

use super::error::JoinError;
use super::progress::Progress;
use crate::commands::{self, CommandError};
use crate::doctor::Severity;
use crate::preflight::Refusal;

/// Modules that a node needs; what is loaded at need only (vxlan) is not among them.
pub(super) const MODULES: [&str; 3] = ["overlay", "nf_tables", "br_netfilter"];

/// What is on the machine, of what can be in the way.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Name and version of the container runtime.
    pub runtime: (String, String),
    /// Of [`MODULES`], those that the kernel neither has nor can load.
    pub absent_modules: Vec<&'static str>,
    /// Conditions of the machine that the configuration forbids.
    pub refusals: Vec<Refusal>,
    /// Ports that the agent would listen on and somebody else does.
    pub taken_ports: Vec<u16>,
    /// Units of other node agents that run, or start with the machine.
    pub other_agents: Vec<OtherAgent>,
    /// Network configurations that the runtime would take before ours.
    pub earlier_networks: Vec<String>,
    /// Firewalls that run.
    pub firewalls: Vec<String>,
    /// Filters that drop pods' packets, and what is for this machine.
    pub closed: [Vec<String>; 2],
    /// Bytes that are free below the data folder.
    pub free: Option<u64>,
    /// The name is one that every machine has.
    pub hostname: String,
}

/// The unit of another node agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OtherAgent {
    pub unit: String,
    /// Now, or in a moment.
    pub runs: bool,
}

/// Tells every problem, and mends what can be mended where `fix` says so: all of it, or nothing where something would be left.
///
/// # Errors
/// [`JoinError::Unfit`] where something is left that a node cannot live with.
pub(super) fn settle(seen: &Seen, fix: bool, progress: Progress) -> Result<(), JoinError> {
    let problems = judge::judge(seen);
    let is_mended = |problem: &Problem| fix && problem.fix.is_some();
    let faults = problems.iter().filter(|problem| problem.finding.severity == Severity::Fault && !is_mended(problem));
    let left: Vec<String> = faults.map(in_words).collect();
    if !left.is_empty() {
        problems.iter().for_each(|problem| progress.finding(&problem.finding, false));
        return Err(JoinError::Unfit { problems: left });
    }
    for problem in &problems {
        let command = problem.fix.as_ref().filter(|_| fix);
        command.map_or(Ok(()), |command| run(command))?;
        progress.finding(&problem.finding, command.is_some());
    }
    Ok(())
}

fn in_words(problem: &Problem) -> String {
    let finding = &problem.finding;
    let remedy = finding.remedy.as_deref().unwrap_or_default();
    let fixable = if problem.fix.is_some() { " (--fix does it)" } else { "" };
    format!("{}: {} -> {remedy}{fixable}", finding.subject, finding.message)
}

/// Runs a command of several words to its end.
pub(super) fn run(words: &[String]) -> Result<(), CommandError> {
    let [program, args @ ..] = words else { return Ok(()) };
    commands::run(Command::new(program).args(args).env("DEBIAN_FRONTEND", "noninteractive"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Output;
    use crate::network::ASIDE;

    #[test]
    fn nothing_is_mended_where_something_would_be_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("05-x.conflist").display().to_string();
        std::fs::write(&path, "{}").unwrap();
        let seen = |free| Seen { earlier_networks: vec![path.clone()], free: Some(free), ..Seen::default() };
        let is_there = || std::fs::exists(&path).unwrap();

        let error = settle(&seen(0), true, Progress(Output::Text)).unwrap_err().to_string();
        assert!(error.contains("disk: 0 MiB") && !error.contains("05-x"), "{error}");
        assert!(is_there());
        let error = settle(&seen(u64::MAX), false, Progress(Output::Text)).unwrap_err().to_string();
        assert!(error.ends_with("(--fix does it)") && is_there(), "{error}");
        settle(&seen(u64::MAX), true, Progress(Output::Text)).unwrap();
        assert!(!is_there() && std::fs::exists(format!("{path}{ASIDE}")).unwrap());
    }
}
