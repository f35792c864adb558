//! Where in an expression something stands, and how cel-go prints what is wrong there.

use std::sync::Arc;

use kube_cel::cel::common::ast::SourceInfo;

use crate::parse;

/// Something wrong, with the line and the column where it stands, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Issue {
    pub line: usize,
    pub column: usize,
    pub text: String,
}

/// Finds the places of parts of an expression.
pub(super) fn of(source: &str, issues: Vec<(u64, String)>) -> Vec<Issue> {
    let places = places(source);
    let place = |id: u64| places.as_ref().and_then(|places| places.offset_for(id)).map_or(0, |(start, _)| start);
    let issue = |(id, text): (u64, String)| {
        // One character stands before the expression.
        let offset = usize::try_from(place(id)).unwrap_or(0).saturating_sub(1);
        let before: String = source.chars().take(offset).collect();
        let line = before.rsplit('\n').next().unwrap_or_default();
        Issue { line: before.matches('\n').count() + 1, column: line.chars().count() + 1, text }
    };
    issues.into_iter().map(issue).collect()
}

/// The parser gives places away only together with errors: one is provoked behind the expression.
fn places(source: &str) -> Option<Arc<SourceInfo>> {
    let errors = parse(&format!("({source}\n) && has(0)")).err()?;
    errors.errors.into_iter().find_map(|error| error.source_info)
}

/// As `cel.Issues.String`.
pub(super) fn rendered(source: &str, mut issues: Vec<Issue>) -> String {
    issues.sort();
    let text = |issue: &Issue| {
        let head = format!("ERROR: <input>:{}:{}: {}", issue.line, issue.column, issue.text);
        let Some(line) = source.split('\n').nth(issue.line.saturating_sub(1)) else { return head };
        let dots = ".".repeat(issue.column.saturating_sub(1));
        format!("{head}\n | {}\n | {dots}^", line.replace('\t', " "))
    };
    issues.iter().map(text).collect::<Vec<_>>().join("\n")
}
