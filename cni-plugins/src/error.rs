//! Errors as the CNI specification wants them: a code and a message, as JSON on standard output.

use std::fmt::Display;

use serde::Serialize;

/// A result of a plugin.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure.
    pub code: Code,
    /// What failed, and on what.
    pub message: String,
    /// Why, when there is more to say.
    pub details: String,
}

/// The error codes of the CNI specification, section "Error", and our own from 100 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The configuration's version is not supported.
    IncompatibleVersion = 1,
    /// A field's value is not supported.
    UnsupportedField = 2,
    /// The container is not known.
    UnknownContainer = 3,
    /// A necessary environment variable is missing or invalid.
    InvalidEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// The configuration is not JSON of the right shape.
    Decode = 6,
    /// The configuration makes no sense.
    InvalidConfig = 7,
    /// The runtime is to try again later.
    TryAgainLater = 11,
    /// The plugin cannot serve ADD requests.
    NotAvailable = 50,
    /// The network is not as it should be (an own code).
    Network = 100,
    /// No address is left (an own code).
    Exhausted = 101,
    /// What CHECK found missing (an own code).
    CheckFailed = 102,
}

impl Error {
    /// An error of `code` saying `message`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// An error of `code` saying `message`, because of `cause` and what caused that.
    pub fn because(code: Code, message: impl Into<String>, cause: &dyn std::error::Error) -> Self {
        let mut details = cause.to_string();
        let mut source = cause.source();
        while let Some(cause) = source {
            details = format!("{details}: {cause}");
            source = cause.source();
        }
        Self { details, ..Self::new(code, message) }
    }

    /// A configuration that makes no sense: `field` and what is wrong with it.
    pub fn config(field: &str, problem: impl Display) -> Self {
        Self::new(Code::InvalidConfig, format!("invalid network configuration: {field}: {problem}"))
    }

    /// A field whose value is not supported.
    pub fn unsupported(field: &str, problem: impl Display) -> Self {
        Self::new(Code::UnsupportedField, format!("unsupported field {field}: {problem}"))
    }

    /// A failed file operation.
    pub fn io(action: &str, path: &std::path::Path, cause: &std::io::Error) -> Self {
        Self::because(Code::Io, format!("{action} {}", path.display()), cause)
    }

    /// The error as the specification's JSON.
    pub fn to_json(&self, version: &str) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Json<'a> {
            cni_version: &'a str,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        let json = Json { cni_version: version, code: self.code as u32, msg: &self.message, details: &self.details };
        // Strings and a number always serialize.
        serde_json::to_string(&json).unwrap_or_default()
    }
}

impl From<netns::Error> for Error {
    fn from(error: netns::Error) -> Self {
        Self::because(Code::Network, "network operation failed", &error)
    }
}
