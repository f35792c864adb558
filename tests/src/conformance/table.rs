//! The table of a run: a line for each test beside what stock made of it on this machine, and totals for each SIG.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::lists::Reasons;
use super::report::{Outcome, Verdict, sig};

/// What a test made, as the table has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub result: String,
    pub seconds: f64,
}

/// Name -> result.
pub type Rows = BTreeMap<String, Row>;

/// The rows of a run. A test that ran twice has the last result, and is `flaky` if it was red before it was green.
#[must_use]
pub fn rows(outcomes: &[Outcome], not_here: &Reasons) -> Rows {
    let mut rows = Rows::new();
    for outcome in outcomes {
        let again = rows.get(&outcome.name).is_some_and(|row: &Row| row.result == "fail");
        let result = match outcome.verdict {
            Verdict::Pass if again => "flaky",
            Verdict::Pass => "pass",
            Verdict::Fail if not_here.0.contains_key(&outcome.name) => "not here",
            Verdict::Fail => "fail",
            Verdict::Skip => "skip",
        };
        rows.insert(outcome.name.clone(), Row { result: result.to_owned(), seconds: outcome.seconds });
    }
    rows
}

/// Reads a table that [`save`] wrote; `None` where there is none.
///
/// # Errors
/// When it is damaged.
pub fn load(path: &Path) -> Result<Option<Rows>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let row = |line: &str| -> Option<(String, Row)> {
        let mut fields = line.split('\t');
        let (name, result, seconds) = (fields.nth(1)?, fields.next()?, fields.next()?);
        Some((name.to_owned(), Row { result: result.to_owned(), seconds: seconds.parse().ok()? }))
    };
    let rows: Option<Rows> = text.lines().skip(1).map(row).collect();
    rows.map(Some).with_context(|| format!("{} is damaged: remove it", path.display()))
}

/// Writes the table: SIG, test, result, seconds, and stock's result and seconds where they are known.
///
/// # Errors
/// When it cannot be written.
pub fn save(path: &Path, rows: &Rows, stock: Option<&Rows>) -> Result<()> {
    let mut text = "sig\ttest\tresult\tseconds\tstock\tstock seconds\n".to_owned();
    for (name, row) in rows {
        let beside = stock.and_then(|s| s.get(name));
        let (result, seconds) = beside.map_or(("", String::new()), |s| (&s.result, format!("{:.1}", s.seconds)));
        writeln!(text, "{}\t{name}\t{}\t{:.1}\t{result}\t{seconds}", sig(name), row.result, row.seconds)?;
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// The table for a person, with totals below.
#[must_use]
pub fn render(rows: &Rows, stock: Option<&Rows>) -> String {
    let mut text = format!("{:<9}{:>8}  {:<9}{:>8}  test\n", "result", "seconds", "stock", "seconds");
    for (name, row) in rows {
        let beside = stock.and_then(|s| s.get(name));
        let (result, seconds) = beside.map_or(("", String::new()), |s| (&s.result, format!("{:.1}", s.seconds)));
        let _ = writeln!(text, "{:<9}{:>8.1}  {result:<9}{seconds:>8}  {name}", row.result, row.seconds);
    }
    text.push('\n');
    text.push_str(&totals(rows));
    text
}

fn totals(rows: &Rows) -> String {
    const RESULTS: [&str; 5] = ["pass", "flaky", "fail", "not here", "skip"];
    let mut sigs: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
    for (name, row) in rows {
        for group in [sig(name), "~ all"] {
            *sigs.entry(group).or_default().entry(&row.result).or_default() += 1;
        }
    }
    let mut text = format!("{:<22}", "");
    for result in RESULTS {
        let _ = write!(text, "{result:>10}");
    }
    text.push('\n');
    for (group, counts) in &sigs {
        let _ = write!(text, "{:<22}", group.trim_start_matches("~ "));
        for result in RESULTS {
            let _ = write!(text, "{:>10}", counts.get(result).copied().unwrap_or(0));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, verdict: Verdict) -> Outcome {
        let (message, location, output) = Default::default();
        Outcome { name: name.into(), verdict, seconds: 2.0, message, location, output }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let not_here = Reasons([("[sig-node] d".to_owned(), "no dummy links".to_owned())].into());
        let run = [
            outcome("[sig-node] a", Verdict::Fail),
            outcome("[sig-node] a", Verdict::Pass),
            outcome("[sig-apps] b", Verdict::Fail),
            outcome("[sig-node] d", Verdict::Fail),
        ];
        let rows = rows(&run, &not_here);
        let results: Vec<_> = rows.values().map(|r| r.result.as_str()).collect();
        assert_eq!(results, ["fail", "flaky", "not here"]);
        let path = std::env::temp_dir().join(format!("keelson-table-{}.tsv", std::process::id()));
        save(&path, &rows, None).unwrap();
        assert_eq!(load(&path).unwrap(), Some(rows.clone()));
        std::fs::write(&path, "head\nx").unwrap();
        assert!(load(&path).is_err());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(load(&path).unwrap(), None);
        let text = render(&rows, Some(&rows));
        assert!(text.contains("fail          2.0  fail          2.0  [sig-apps] b"), "{text}");
        assert!(text.lines().last().unwrap().starts_with("all"), "{text}");
    }
}
