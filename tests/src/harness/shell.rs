//! Commands, with errors that say which one failed and what it printed.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs a command to its end and answers what it printed.
///
/// # Errors
/// When it cannot be started or exits with anything but zero.
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
    output(Command::new(program).args(args))
}

/// The same for a command that was prepared.
///
/// # Errors
/// When it cannot be started or exits with anything but zero.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let said =
        || -> String { command.get_args().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ") };
    let line = format!("{name} {}", said());
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("start {name}"))?;
    if !out.status.success() {
        bail!(
            "{line}: {}\n{}{}",
            out.status,
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Asks again and again until the answer is yes.
///
/// # Errors
/// The last answer's error, when time is up.
pub fn wait_for<T>(what: &str, time: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let until = Instant::now() + time;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() > until => {
                return Err(error.context(format!("waited {} s for {what}", time.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
