//! exec: a command in the container, run by the caller (pkg/probe/exec).

use std::future::Future;
use std::time::Duration;

use super::{MAX_OUTPUT, go_duration};
use crate::probe::Outcome;

/// What a command answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOutput {
    pub exit_code: i32,
    /// Standard output and error.
    pub output: Vec<u8>,
}

/// Why a command has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    #[error("timed out")]
    TimedOut,
    #[error("{0}")]
    Other(String),
}

/// Runs commands in one container.
pub trait Exec: Send + Sync + 'static {
    /// Runs `command` and kills it after `timeout`.
    fn exec(&self, command: &[String], timeout: Duration)
    -> impl Future<Output = Result<ExecOutput, ExecError>> + Send;
}

pub(crate) async fn probe<E: Exec>(by: &E, command: &[String], timeout: Duration) -> Outcome {
    match by.exec(command, timeout).await {
        Ok(output) if output.exit_code == 0 => Outcome::Success,
        Ok(output) => {
            let end = output.output.len().min(MAX_OUTPUT);
            Outcome::Failure(String::from_utf8_lossy(output.output.get(..end).unwrap_or_default()).into_owned())
        }
        Err(ExecError::TimedOut) => Outcome::Failure(format!(
            "command timed out: {:?} timed out after {}",
            command.join(" "),
            go_duration(timeout)
        )),
        Err(ExecError::Other(error)) => Outcome::Error(error),
    }
}
