//! What a machine has that is in the way of a node: [`look`] gathers it, [`judge`] says what to do about it, and what a command can do,
//! `--fix` does.

mod judge;
mod look;

use std::process::Command;

pub(super) use look::look;

use super::error::JoinError;
use super::progress::Progress;
use crate::commands::{self, CommandError};
use crate::doctor::Severity;

/// Modules that a node needs; what is loaded at need only (vxlan) is not among them.
pub(super) const MODULES: [&str; 2] = ["overlay", "nf_tables"];

/// What is on the machine, of what can be in the way.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Name and version of the container runtime.
    pub runtime: (String, String),
    /// Of [`MODULES`], those that the kernel neither has nor can load.
    pub absent_modules: Vec<&'static str>,
    /// Whether swap is on where it must not be.
    pub forbidden_swap: bool,
    /// Ports that the agent would listen on and somebody else does.
    pub taken_ports: Vec<u16>,
    /// Units of other node agents that run.
    pub other_agents: Vec<String>,
    /// Network configurations that the runtime would take before ours.
    pub earlier_networks: Vec<String>,
    /// Firewalls that run.
    pub firewalls: Vec<String>,
    /// Bytes that are free below the data folder.
    pub free: Option<u64>,
    /// The name is one that every machine has.
    pub hostname: String,
}

/// Tells every problem, and mends what can be mended where `fix` says so.
///
/// # Errors
/// [`JoinError::Unfit`] where something is left that a node cannot live with.
pub(super) fn settle(seen: &Seen, fix: bool, progress: Progress) -> Result<(), JoinError> {
    let mut left = Vec::new();
    for problem in judge::judge(seen) {
        let finding = &problem.finding;
        let remedy = finding.remedy.as_deref().unwrap_or_default();
        if fix && let Some(command) = &problem.fix {
            run(command)?;
            progress.finding(finding, true);
            continue;
        }
        if finding.severity == Severity::Fault {
            let fixable = if problem.fix.is_some() { " (--fix does it)" } else { "" };
            left.push(format!("{}: {} -> {remedy}{fixable}", finding.subject, finding.message));
        }
        progress.finding(finding, false);
    }
    if left.is_empty() { Ok(()) } else { Err(JoinError::Unfit { problems: left }) }
}

/// Runs a command of several words to its end.
pub(super) fn run(words: &[String]) -> Result<(), CommandError> {
    let [program, args @ ..] = words else { return Ok(()) };
    commands::run(Command::new(program).args(args).env("DEBIAN_FRONTEND", "noninteractive"))
}
