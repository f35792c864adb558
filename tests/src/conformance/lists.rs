//! The ratchet's lists in `tests/upstream`: what passes for each suite and kind of cluster, what cannot pass on this kind of
//! machine, and what passes only now and then.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::report::{Outcome, Verdict};
use super::suite::{Against, Suite};
use crate::harness::images::checkout;

/// Names of tests that pass, each with the seconds that it took when it was added: a slice is chosen by them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passing(pub BTreeMap<String, u64>);

/// Names of tests, each with the reason why it is no test like others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasons(pub BTreeMap<String, String>);

/// How a run compares with the list.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// On the list, and failed or skipped itself.
    pub red: Vec<String>,
    /// Passed, and not on the list.
    pub green: Vec<String>,
}

fn upstream() -> PathBuf {
    checkout().join("tests/upstream")
}

/// Where the list of a suite and a kind of cluster is.
#[must_use]
pub fn path(suite: Suite, against: Against) -> PathBuf {
    upstream().join("passing").join(format!("{suite}-{against}.txt"))
}

impl Passing {
    /// Reads a list; one that is not there is empty.
    ///
    /// # Errors
    /// When it cannot be read or a line is not SECONDS, tab, NAME.
    pub fn read(path: &Path) -> Result<Self> {
        let entries = read_pairs(path)?;
        let parse = |(seconds, name): (String, String)| -> Result<(String, u64)> {
            let seconds = seconds.parse().with_context(|| format!("{}: {seconds:?} are no seconds", path.display()))?;
            Ok((name, seconds))
        };
        entries.into_iter().map(parse).collect::<Result<_>>().map(Self)
    }

    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = String::new();
        for (name, seconds) in &self.0 {
            writeln!(text, "{seconds}\t{name}")?;
        }
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Compares a run with the list.
    #[must_use]
    pub fn compare(&self, outcomes: &[Outcome]) -> Change {
        let mut change = Change::default();
        for outcome in outcomes {
            let listed = self.0.contains_key(&outcome.name);
            match outcome.verdict {
                Verdict::Fail | Verdict::Skip if listed => change.red.push(outcome.name.clone()),
                Verdict::Pass if !listed => change.green.push(outcome.name.clone()),
                _ => {}
            }
        }
        change.red.sort();
        change.green.sort();
        change
    }

    /// Adds what passed. Nothing is ever taken away.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // seconds of a test
    pub fn add(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes.iter().filter(|o| o.verdict == Verdict::Pass) {
            self.0.entry(outcome.name.clone()).or_insert(outcome.seconds.ceil() as u64);
        }
    }
}

impl Reasons {
    /// `not-here.tsv`: what is red on stock because of the machine.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn not_here() -> Result<Self> {
        Self::read("not-here.tsv")
    }

    /// `unsteady.tsv`: what is on a list and red now and then; a slice for CI has none of it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn unsteady() -> Result<Self> {
        Self::read("unsteady.tsv")
    }

    fn read(file: &str) -> Result<Self> {
        Ok(Self(read_pairs(&upstream().join(file))?.into_iter().collect()))
    }
}

/// Lines of two fields with a tab between them; lines that begin with # are comments.
fn read_pairs(path: &Path) -> Result<Vec<(String, String)>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let pair = |line: &str| -> Result<(String, String)> {
        let (left, right) = line.split_once('\t').with_context(|| format!("{}: no tab in {line:?}", path.display()))?;
        Ok((left.trim().to_owned(), right.trim().to_owned()))
    };
    text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, verdict: Verdict) -> Outcome {
        let (message, location, output) = Default::default();
        Outcome { name: name.into(), verdict, seconds: 1.2, message, location, output }
    }

    #[test]
    fn a_list_only_grows() {
        let dir = std::env::temp_dir().join(format!("keelson-lists-{}", std::process::id()));
        let file = dir.join("node-ours.txt");
        assert_eq!(Passing::read(&file).unwrap(), Passing::default());
        let run = [outcome("a", Verdict::Pass), outcome("b", Verdict::Fail), outcome("c", Verdict::Skip)];
        let mut list = Passing([("b".to_owned(), 3)].into());
        assert_eq!(Passing([("c".to_owned(), 3)].into()).compare(&run).red, ["c"]);
        assert_eq!(list.compare(&run), Change { red: vec!["b".into()], green: vec!["a".into()] });
        list.add(&run);
        list.write(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "2\ta\n3\tb\n");
        assert_eq!(Passing::read(&file).unwrap(), list);
        fs::write(&file, "a\n").unwrap();
        assert!(format!("{:#}", Passing::read(&file).unwrap_err()).contains("no tab"));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn every_test_that_is_no_test_like_others_has_a_reason() {
        let (not_here, unsteady) = (Reasons::not_here().unwrap(), Reasons::unsteady().unwrap());
        for (name, reason) in not_here.0.into_iter().chain(unsteady.0) {
            assert!(name.starts_with('[') && reason.len() > 10, "{name}: {reason}");
        }
    }
}
