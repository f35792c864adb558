//! The measuring client: a Go program that speaks to either side as a user of Kubernetes does. See `tests/bench/kbench/main.go`.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::Figures;
use crate::harness::images::checkout;
use crate::harness::shell::output;

/// The client, built.
#[derive(Debug, Clone)]
pub struct Kbench {
    pub program: PathBuf,
}

impl Kbench {
    /// Builds it, which takes minutes for the first time and a second later.
    ///
    /// # Errors
    /// When Go is missing or the client does not build.
    pub fn build() -> Result<Self> {
        let program = checkout().join(".cache/bench/kbench");
        let mut go = Command::new(go()?);
        go.current_dir(checkout().join("tests/bench/kbench")).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly");
        output(go.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(&program).arg("."))
            .context("build kbench")?;
        Ok(Self { program })
    }

    /// Runs a measurement against an API server.
    ///
    /// # Errors
    /// When it fails; the error has what it printed.
    pub fn run(&self, kubeconfig: &Path, args: &[&str]) -> Result<Figures> {
        let mut command = Command::new(&self.program);
        read(&output(command.args(args).arg("-kubeconfig").arg(kubeconfig))?)
    }

    /// Runs a measurement that needs no API server.
    ///
    /// # Errors
    /// When it fails; the error has what it printed.
    pub fn without_api(&self, args: &[&str]) -> Result<Figures> {
        read(&output(Command::new(&self.program).args(args))?)
    }
}

/// What a command printed that ran kbench in some way.
///
/// # Errors
/// When that is no figures.
pub fn read(printed: &str) -> Result<Figures> {
    serde_json::from_str(printed).with_context(|| format!("kbench printed {printed:?}"))
}

fn go() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = [PathBuf::from("/usr/local/go/bin")];
    let found = std::env::split_paths(&path).chain(usual).map(|dir| dir.join("go")).find(|go| go.exists());
    found.context("Go 1.26 or later is missing, which the measuring client is written in: see go.dev, or golang-go in Debian forky")
}

/// kbench at work in the background, after it said that it is ready.
#[derive(Debug)]
pub struct Waiting {
    child: Child,
    said: BufReader<std::process::ChildStderr>,
}

impl Waiting {
    /// Starts a command and waits until it prints `word` alone on a line of standard error.
    ///
    /// # Errors
    /// When it ends before.
    pub fn start(command: &mut Command, word: &str) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.context("start kbench")?;
        let mut said = BufReader::new(child.stderr.take().context("kbench's standard error")?);
        let mut all = String::new();
        while !all.lines().any(|line| line == word) {
            if said.read_line(&mut all)? == 0 {
                let status = child.wait()?;
                bail!("kbench: {status}: {all}");
            }
        }
        Ok(Self { child, said })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it fails.
    pub fn figures(mut self) -> Result<Figures> {
        let mut printed = String::new();
        self.child.stdout.take().context("kbench's standard output")?.read_to_string(&mut printed)?;
        let mut all = String::new();
        self.said.read_to_string(&mut all)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "kbench: {status}: {all}");
        read(&printed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_over_when_the_word_is_said_and_figures_are_read_at_the_end() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo hm >&2; echo polling >&2; echo '{\"x_ms\":[1]}'"]);
        let waiting = Waiting::start(&mut command, "polling").unwrap();
        assert_eq!(waiting.figures().unwrap().median("x_ms"), Some(1.0));
    }

    #[test]
    fn a_client_that_fails_says_why() {
        let mut early = Command::new("sh");
        early.args(["-c", "echo no cluster >&2; exit 1"]);
        let error = Waiting::start(&mut early, "polling").unwrap_err().to_string();
        assert!(error.contains("no cluster"), "{error}");
        let mut late = Command::new("sh");
        late.args(["-c", "echo polling >&2; echo too late >&2; exit 1"]);
        let error = Waiting::start(&mut late, "polling").unwrap().figures().unwrap_err().to_string();
        assert!(error.contains("too late"), "{error}");
    }
}
