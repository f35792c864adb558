//! The built binary with a data directory of its own.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a master may take until it answers, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub const ADVERTISED: &str = "192.0.2.2";

pub struct Master {
    pub dir: tempfile::TempDir,
    pub port: u16,
    child: Option<Child>,
}

impl Master {
    /// A data directory, and a port that was free a moment ago.
    pub fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Master { dir: tempfile::tempdir().unwrap(), port, child: None }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_master"));
        command.args(words).arg("--data-dir").arg(self.dir.path());
        command
    }

    pub fn call(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// `init` of a master that listens on loopback only; the address that it advertises is nobody's (RFC 5737).
    pub fn init(&self, more: &[&str]) -> Output {
        let bind = format!("127.0.0.1:{}", self.port);
        let mut words = vec!["init", "--no-service", "--advertise-address", ADVERTISED, "--bind", &bind];
        words.extend(more);
        self.call(&words)
    }
}

/// What a successful command said.
pub fn said(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The `agent join` line of what `master` printed.
#[allow(dead_code, reason = "each test binary uses a part of this")]
pub fn join_line(text: &str) -> &str {
    text.lines().find(|line| line.starts_with("agent join ")).unwrap()
}

#[allow(dead_code, reason = "each test binary uses a part of this")]
impl Master {
    /// One that was made and answers.
    pub fn started() -> Self {
        let mut master = Self::new();
        said(&master.init(&[]));
        master.start();
        master
    }

    /// Starts serving and waits until it answers.
    pub fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut run = self.command(&["run"]);
        self.child = Some(run.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let start = Instant::now();
        while !self.kubectl(&["get", "--raw", "/readyz"]).status.success() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && start.elapsed() < PATIENCE, "{ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Asks it to end, and returns whether it ended well.
    pub fn stop(&mut self) -> bool {
        let Some(mut child) = self.child.take() else { return true };
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        child.wait().unwrap().success()
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn kubectl(&self, words: &[&str]) -> Output {
        self.kubectl_with(&self.path("admin.conf"), words)
    }

    pub fn kubectl_with(&self, kubeconfig: &Path, words: &[&str]) -> Output {
        self.kubectl_command(kubeconfig, words).output().unwrap()
    }

    fn kubectl_command(&self, kubeconfig: &Path, words: &[&str]) -> Command {
        let mut kubectl = Command::new("kubectl");
        kubectl.arg("--kubeconfig").arg(kubeconfig).arg(format!("--server=https://127.0.0.1:{}", self.port));
        kubectl.args(words).env("HOME", self.dir.path());
        kubectl
    }

    /// `kubectl create -f -`, which sends what it is given as it is.
    pub fn create(&self, manifest: &str, more: &[&str]) -> Output {
        self.kubectl_reading(manifest, &[&["create", "--validate=false", "-f", "-"], more].concat())
    }

    /// `kubectl create --raw`
    pub fn create_raw(&self, path: &str, body: &str) -> Output {
        self.kubectl_reading(body, &["create", "--raw", path, "-f", "-"])
    }

    /// kubectl with something to read.
    pub fn kubectl_reading(&self, input: &str, words: &[&str]) -> Output {
        let mut kubectl = self.kubectl_command(&self.path("admin.conf"), words);
        kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = kubectl.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    pub fn say(&self, words: &[&str]) -> String {
        said(&self.kubectl(words))
    }

    /// Repeats `words` until what it prints is `wanted`.
    pub fn wait(&self, words: &[&str], wanted: &str) {
        let start = Instant::now();
        loop {
            let output = self.kubectl(words);
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if text == wanted {
                return;
            }
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(start.elapsed() < PATIENCE, "{words:?} says {text:?} {errors}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The test has failed already: nothing more to say when it cannot be ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
