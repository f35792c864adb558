//! `agent doctor`: looks at a running node and says in one line each what is wrong with it, and what to do about it.
//!
//! [`look`] asks, [`judge`] decides; the answer is an exit code, too: zero where nothing is at fault.

mod judge;
mod limits;
mod look;
mod pods;

pub(crate) use judge::{closed, cordoned};
pub(crate) use look::{essentials, node};

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

/// Command line of `agent doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorOptions {
    /// Folder of configuration and keys
    #[arg(long, default_value = "/etc/keelson")]
    pub config_dir: PathBuf,
    /// Look for what a machine that has left still has of a node
    #[arg(long)]
    pub leftovers: bool,
    /// How findings are printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A line each, with the remedy below.
    Text,
    /// An array of objects.
    Json,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// The node works, and will not for ever.
    Warning,
    /// The node does not work, or not wholly.
    Fault,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was seen.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    pub(crate) fn ok(subject: &'static str, message: impl Into<String>) -> Self {
        Self { subject, severity: Severity::Ok, message: message.into(), remedy: None }
    }

    pub(crate) fn warning(subject: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, severity: Severity::Warning, message: message.into(), remedy: Some(remedy.into()) }
    }

    pub(crate) fn fault(subject: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, severity: Severity::Fault, message: message.into(), remedy: Some(remedy.into()) }
    }
}

/// Looks, and prints what was found.
///
/// # Errors
/// When something is at fault.
pub async fn doctor(options: &DoctorOptions) -> anyhow::Result<()> {
    let findings = if options.leftovers { look::leftovers().await } else { node(&options.config_dir).await };
    print(&findings, options.output)
}

/// Prints findings.
///
/// # Errors
/// When something is at fault.
pub(crate) fn print(findings: &[Finding], output: Output) -> anyhow::Result<()> {
    match output {
        Output::Text => findings.iter().for_each(|finding| manual::output::text(text(finding))),
        Output::Json => manual::output::line(serde_json::to_string_pretty(findings)?),
    }
    let faults = findings.iter().filter(|finding| finding.severity == Severity::Fault).count();
    anyhow::ensure!(faults == 0, "{faults} thing(s) at fault");
    Ok(())
}

fn text(finding: &Finding) -> String {
    let mark = match finding.severity {
        Severity::Ok => "ok     ",
        Severity::Warning => "warning",
        Severity::Fault => "FAULT  ",
    };
    let remedy = finding.remedy.as_ref().map(|remedy| format!("        -> {remedy}\n")).unwrap_or_default();
    format!("{mark} {}: {}\n{remedy}", finding.subject, finding.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_its_remedy_another() {
        assert_eq!(text(&Finding::ok("disk", "12 GiB free")), "ok      disk: 12 GiB free\n");
        let fault = Finding::fault("runtime", "no answer", "systemctl start containerd");
        assert_eq!(text(&fault), "FAULT   runtime: no answer\n        -> systemctl start containerd\n");
        let json = serde_json::to_value(&fault).unwrap();
        assert_eq!(json["severity"], "fault");
        assert_eq!(json["remedy"], "systemctl start containerd");
    }
}
