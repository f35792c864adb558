//! How a join is told to the person, or program, that asked for it.

use serde_json::{Value, json};

use crate::doctor::{Finding, Output, Severity};

/// Tells it on standard output: a line of text, or of JSON, for each step.
#[derive(Debug, Clone, Copy)]
pub struct Progress(pub Output);

impl Progress {
    pub(super) fn say(self, line: &str) {
        self.tell(line, || json!({"event": "progress", "message": line}));
    }

    /// Something that was seen on the machine, and what became of it.
    pub(super) fn finding(self, finding: &Finding, is_fixed: bool) {
        let Finding { subject, severity, message, remedy } = finding;
        let remedy = remedy.as_deref().unwrap_or_default();
        let line = match (is_fixed, severity) {
            (true, _) => format!("{subject}: {message}; fixed by: {remedy}"),
            (false, Severity::Fault) => format!("FAULT: {subject}: {message} -> {remedy}"),
            (false, _) => format!("warning: {subject}: {message} -> {remedy}"),
        };
        self.tell(&line, || json!({"event": "finding", "finding": finding, "fixed": is_fixed}));
    }

    /// The node is in the cluster and Ready.
    pub(super) fn done(self, name: &str) {
        self.tell(&format!("node {name} is Ready"), || json!({"event": "ready", "node": name}));
    }

    /// It ended, and why; people read that on standard error.
    pub fn failed(self, message: &str) {
        if self.0 == Output::Json {
            manual::output::line(json!({"event": "failed", "message": message}));
        }
    }

    fn tell(self, line: &str, event: impl FnOnce() -> Value) {
        match self.0 {
            Output::Text => manual::output::line(format_args!("[join] {line}")),
            Output::Json => manual::output::line(event()),
        }
    }
}
