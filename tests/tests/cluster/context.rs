//! What every test has: the cluster, kubectl, a namespace.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::harness::Cluster;
use keelson_tests::harness::kubectl::Kubectl;
use keelson_tests::harness::shell::{output, wait_for};
use serde_json::Value;

/// The shared cluster.
pub struct Context {
    cluster: Mutex<Cluster>,
    kubectl: Kubectl,
    namespaces: AtomicU32,
}

/// A namespace of one test; it is deleted when the test ends.
pub struct Namespace<'a> {
    pub name: String,
    context: &'a Context,
}

impl Context {
    pub fn new(cluster: Cluster) -> Self {
        let kubectl = cluster.kubectl();
        Self { cluster: Mutex::new(cluster), kubectl, namespaces: AtomicU32::new(0) }
    }

    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    pub fn namespace(&self) -> Result<Namespace<'_>> {
        let name = format!("t{}", self.namespaces.fetch_add(1, Ordering::Relaxed));
        self.kubectl.say(&format!("create namespace {name}"))?;
        wait_for("the namespace's service account", Duration::from_secs(20), || {
            self.kubectl.say(&format!("get serviceaccount default -n {name}"))
        })?;
        Ok(Namespace { name, context: self })
    }

    /// A command on a host (`m`, `n1`, …) and what it prints.
    pub fn on(&self, host: &str, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let mut command = self.cluster().inside(host, words.next().context("a command")?);
        output(command.args(words))
    }
}

impl Namespace<'_> {
    fn args(&self) -> [&str; 2] {
        ["-n", &self.name]
    }

    /// kubectl in this namespace.
    pub fn command(&self) -> Command {
        let mut command = self.context.kubectl.command();
        command.args(self.args());
        command
    }

    /// kubectl in this namespace, the line split at white space.
    pub fn say(&self, line: &str) -> Result<String> {
        output(self.command().args(line.split_whitespace()))
    }

    /// The same with words that have spaces.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        output(self.command().args(args))
    }

    /// What kubectl says when it fails; an error when it does not fail.
    pub fn refused(&self, args: &[&str]) -> Result<String> {
        let out = self.command().args(args).output()?;
        ensure!(
            !out.status.success(),
            "kubectl {args:?} was to fail and printed {}",
            String::from_utf8_lossy(&out.stdout)
        );
        Ok(String::from_utf8_lossy(&out.stderr).into_owned())
    }

    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.fed(&["apply", "-f", "-"], manifest)
    }

    /// kubectl with something on its standard input.
    pub fn fed(&self, args: &[&str], input: &str) -> Result<String> {
        use std::io::Write;
        use std::process::Stdio;
        let mut command = self.command();
        let mut child =
            command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("stdin")?.write_all(input.as_bytes())?;
        let out = child.wait_with_output()?;
        ensure!(out.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    pub fn json(&self, line: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.say(&format!("{line} -o json"))?)?)
    }

    /// `kubectl wait` with a minute's patience.
    pub fn wait(&self, what: &str, condition: &str) -> Result<String> {
        self.say(&format!("wait {what} --for={condition} --timeout=60s")).map_err(|error| {
            let seen = self.say(&format!("describe {what}")).unwrap_or_default();
            error.context(format!("{what} is\n{seen}"))
        })
    }

    /// Asks until the answer is as wanted.
    pub fn until<T>(&self, what: &str, ask: impl FnMut() -> Result<T>) -> Result<T> {
        wait_for(what, Duration::from_secs(60), ask)
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // Its deletion has a test of its own; here it only must not delay the next test.
        if let Err(error) = self.context.kubectl.say(&format!("delete namespace {} --wait=false", self.name)) {
            eprintln!("{error:#}");
        }
    }
}
