//! Programs of the machine that are run to their end.

use std::process::Command;

use crate::client::watch::describe;

/// A command that could not be started, or failed.
#[derive(Debug, thiserror::Error)]
#[error("{line}: {message}")]
pub struct CommandError {
    /// As one would type it.
    line: String,
    /// What it said.
    message: String,
}

/// Runs a command to its end. Blocks.
///
/// # Errors
/// What it said on standard error.
pub fn run(command: &mut Command) -> Result<(), CommandError> {
    let out = command.output();
    let message = match out {
        Ok(out) if out.status.success() => return Ok(()),
        Ok(out) => String::from_utf8_lossy(&out.stderr).trim().to_owned(),
        Err(error) => describe(&error),
    };
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    Err(CommandError { line, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fails_says_what_was_run_and_what_it_said() {
        let failed = |words: &[&str]| run(Command::new(words[0]).args(&words[1..])).map_err(|error| error.to_string());
        assert_eq!(failed(&["true"]), Ok(()));
        assert_eq!(failed(&["sh", "-c", "echo no >&2; exit 3"]).unwrap_err(), "sh -c echo no >&2; exit 3: no");
        assert!(failed(&["/nowhere/program", "x"]).unwrap_err().starts_with("/nowhere/program x: No such file"));
    }
}
