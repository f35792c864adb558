//! Commands in a machine, through QEMU's guest agent (qemu-ga): JSON over a virtual serial port, whether or not there is a network.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// How long a command may take unless said otherwise: emulated machines are slow, and share two cores with others.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long the agent may take for an answer of its own.
const ANSWER: Duration = Duration::from_secs(20);
/// What ends a stream that a client before us has left half read, and begins an answer (guest-sync-delimited).
const SENTINEL: u8 = 0xff;

/// The agent of one machine.
#[derive(Debug, Clone)]
pub struct Guest {
    pub socket: PathBuf,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i64,
    pub stdout: String,
    pub stderr: String,
}

impl Guest {
    /// Runs a line of shell and answers what it printed.
    ///
    /// # Errors
    /// When it exits with anything but zero, or nobody answers.
    pub fn say(&self, line: &str) -> Result<String> {
        self.say_within(line, PATIENCE)
    }

    /// The same with other patience.
    ///
    /// # Errors
    /// As [`Self::say`].
    pub fn say_within(&self, line: &str, patience: Duration) -> Result<String> {
        let out = self.run(line, patience)?;
        ensure!(out.code == 0, "{line}: exit {}\n{}{}", out.code, out.stdout, out.stderr);
        Ok(out.stdout)
    }

    /// Runs a line of shell to its end.
    ///
    /// # Errors
    /// When nobody answers or the command does not end.
    pub fn run(&self, line: &str, patience: Duration) -> Result<Output> {
        let mut talk = Talk::begin(self)?;
        // The agent's own PATH is what systemd gives its services.
        let env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"];
        let started = talk
            .ask("guest-exec", json!({"path": "/bin/sh", "arg": ["-c", line], "env": env, "capture-output": true}))?;
        let until = Instant::now() + patience;
        loop {
            let status = talk.ask("guest-exec-status", json!({"pid": field(&started, "pid")}))?;
            if *field(&status, "exited") == true {
                return output(&status);
            }
            ensure!(Instant::now() < until, "{line}: not ended after {} s", patience.as_secs());
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    /// Whether somebody answers.
    ///
    /// # Errors
    /// When nobody does.
    pub fn ping(&self) -> Result<()> {
        Talk::begin(self)?.ask("guest-ping", json!({})).map(drop)
    }
}

fn field<'a>(answer: &'a Value, name: &str) -> &'a Value {
    answer.get(name).unwrap_or(&Value::Null)
}

fn output(status: &Value) -> Result<Output> {
    let text = |name: &str| -> Result<String> {
        let bytes = STANDARD.decode(field(status, name).as_str().unwrap_or_default()).context("base64")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    // Ended by a signal, as shells say it.
    let code = field(status, "exitcode")
        .as_i64()
        .or_else(|| Some(128 + field(status, "signal").as_i64()?))
        .context("no exit code")?;
    Ok(Output { code, stdout: text("out-data")?, stderr: text("err-data")? })
}

/// One connection. QEMU accepts one at a time.
struct Talk {
    stream: BufReader<UnixStream>,
}

impl Talk {
    fn begin(guest: &Guest) -> Result<Self> {
        let stream =
            UnixStream::connect(&guest.socket).with_context(|| format!("connect {}", guest.socket.display()))?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut talk = Self { stream: BufReader::new(stream) };
        let id = std::process::id();
        talk.stream.get_mut().write_all(&[SENTINEL])?;
        talk.send("guest-sync-delimited", &json!({"id": id}))?;
        // What a client before us did not read comes first.
        while {
            let skipped =
                talk.stream.read_until(SENTINEL, &mut Vec::new()).context("the guest agent does not answer")?;
            ensure!(skipped > 0, "the guest agent hung up");
            talk.answer()? != id
        } {}
        Ok(talk)
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.send(command, &arguments)?;
        self.answer().with_context(|| command.to_owned())
    }

    fn send(&mut self, command: &str, arguments: &Value) -> Result<()> {
        let line = json!({"execute": command, "arguments": arguments}).to_string();
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes()).context("write to the guest agent")
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).context("the guest agent does not answer")?;
        ensure!(read > 0, "the guest agent hung up");
        let mut answer: Value =
            serde_json::from_str(&line).with_context(|| format!("the guest agent said {line:?}"))?;
        match answer.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => bail!("the guest agent refused: {}", answer.pointer("/error/desc").unwrap_or(&Value::Null)),
        }
    }
}
