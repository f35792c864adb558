//! Runs a suite through the ginkgo command, and says how far it is.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::output::{Event, Seen};
use super::report::{self, Outcome};
use crate::harness::cluster::Progress;
use crate::harness::host::enter;
use crate::harness::upstream::Upstream;

/// How often progress is said where nobody watches a bar.
const SAID: Duration = Duration::from_secs(30);
/// The file of ginkgo's report.
const REPORT: &str = "report.json";

/// One call of ginkgo.
#[derive(Debug, Clone)]
pub struct Run {
    /// What is said of it.
    pub what: String,
    /// `e2e.test`, `e2e_node.test` or `critest.test`.
    pub program: PathBuf,
    /// The suite's own flags.
    pub flags: Vec<String>,
    /// ginkgo's label expression.
    pub labels: String,
    /// Only tests whose name matches one of these; all where there are none.
    pub focus: Vec<String>,
    /// No tests whose name matches one of these.
    pub skip: Vec<String>,
    pub processes: u8,
    /// What runs still after this long is ended, and red.
    pub timeout: Duration,
    /// The network namespace that it runs in; this machine's where there is none.
    pub netns: Option<PathBuf>,
    /// Where log and report are written.
    pub dir: PathBuf,
}

impl Run {
    /// Runs it here to its end, red or not.
    ///
    /// # Errors
    /// When the suite does not start or leaves no report.
    pub fn run(&self, upstream: &Upstream, progress: &mut dyn Progress) -> Result<Vec<Outcome>> {
        self.make_dir()?;
        let mut child = self.command(upstream).spawn().context("start ginkgo")?;
        // Ending ginkgo alone would leave the processes that run its tests.
        let group = Group(child.id());
        let out = child.stdout.take().context("ginkgo's output")?;
        let seen = self.follow(BufReader::new(out).split(b'\n'), progress);
        child.wait()?;
        drop(group);
        self.outcomes(seen?, progress)
    }

    /// Makes the folder of its results, with no report in it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn make_dir(&self) -> Result<()> {
        fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        let report = self.report();
        if report.exists() {
            fs::remove_file(&report)?;
        }
        Ok(())
    }

    /// Where ginkgo's report is in the end.
    #[must_use]
    pub fn report(&self) -> PathBuf {
        self.dir.join(REPORT)
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// What ginkgo left; `seen` is what its output said.
    ///
    /// # Errors
    /// When its report cannot be read.
    pub fn outcomes(&self, seen: Vec<Outcome>, progress: &mut dyn Progress) -> Result<Vec<Outcome>> {
        let report = self.report();
        let written = report.metadata().is_ok_and(|file| file.len() > 0);
        let outcomes = if written { report::read(&report)? } else { Vec::new() };
        if !outcomes.is_empty() || seen.is_empty() {
            return Ok(outcomes);
        }
        // Where a process of the suite dies under a test, ginkgo runs the others and then reports nothing at all.
        progress.note(&format!("a process of the suite died: results are read from {}", self.log().display()));
        Ok(seen)
    }

    fn command(&self, upstream: &Upstream) -> Command {
        let program = upstream.program("ginkgo");
        let mut ginkgo = self.netns.as_deref().map_or_else(|| Command::new(&program), |netns| enter(netns, &program));
        ginkgo.args(self.arguments(&self.dir));
        ginkgo.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
        ginkgo
    }

    /// What ginkgo is told; its report lands in `out`.
    #[must_use]
    pub fn arguments(&self, out: &Path) -> Vec<String> {
        let mut arguments = vec![
            "-v".to_owned(),
            "-no-color".into(),
            format!("-json-report={REPORT}"),
            format!("-timeout={}s", self.timeout.as_secs()),
            format!("-procs={}", self.processes),
            format!("-output-dir={}", out.display()),
            format!("-label-filter={}", self.labels),
        ];
        arguments.extend(self.focus.iter().map(|name| format!("-focus={name}")));
        arguments.extend(self.skip.iter().map(|name| format!("-skip={name}")));
        arguments.extend([self.program.display().to_string(), "--".into()]);
        arguments.extend(self.flags.clone());
        arguments
    }

    /// Follows the output and answers the tests that it says of how they ended.
    ///
    /// # Errors
    /// When it cannot be read, or not be written into the log.
    pub fn follow(
        &self,
        lines: impl Iterator<Item = std::io::Result<Vec<u8>>>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Outcome>> {
        let log = self.log();
        let mut log = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut seen = Seen::default();
        let (begun, mut said) = (Instant::now(), Instant::now());
        progress.step(&format!("{}: compiling the list of tests", self.what), 0);
        for line in lines {
            let line = line?;
            log.write_all(&line)?;
            log.write_all(b"\n")?;
            match seen.line(&String::from_utf8_lossy(&line)) {
                Event::Begins(total) => progress.step(&self.what, total),
                Event::Ended => progress.tick(),
                Event::Failed(name) => {
                    progress.tick();
                    progress.note(&format!("red   {name}"));
                }
                Event::Nothing => {}
            }
            if said.elapsed() > SAID && seen.total > 0 {
                said = Instant::now();
                let seconds = begun.elapsed().as_secs();
                progress.note(&format!("{} of {} after {seconds} s, {} red", seen.ended, seen.total, seen.red));
            }
        }
        Ok(seen.outcomes())
    }
}

/// A process group that ends with us.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(id) = i32::try_from(self.0) {
            // It is gone already when all went well.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

/// A regular expression that matches what has this text in it.
#[must_use]
pub fn part(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c == ' ' {
            // Names in reports have one space where the suite's may have two.
            escaped.push_str(r"\s+");
            continue;
        }
        if "\\.+*?()|[]{}^$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// A regular expression that matches the test of this name, and none whose name only begins with it. The suite's own comes first.
#[must_use]
pub fn exactly(name: &str) -> String {
    format!(r"\s{}\s*$", part(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_expressions_of_themselves() {
        assert_eq!(part("[sig-node] a (b) c.d"), r"\[sig-node\]\s+a\s+\(b\)\s+c\.d");
        assert_eq!(exactly("[x] a"), r"\s\[x\]\s+a\s*$");
    }
}
