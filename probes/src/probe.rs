use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        })
    }
}

/// A `core/v1 Probe`, defaulted, with its ports resolved to numbers and its host to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    pub handler: Handler,
    /// Counted from the start of the container.
    pub initial_delay: Duration,
    pub period: Duration,
    /// Of one question.
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handler {
    Http { scheme: Scheme, host: String, port: u16, path: String, headers: Vec<(String, String)> },
    Tcp { host: String, port: u16 },
    Grpc { host: IpAddr, port: u16, service: String },
    Exec { command: Vec<String> },
}

impl Handler {
    /// Whether asking costs so little that it may be done more often than asked for.
    pub(crate) fn is_cheap(&self) -> bool {
        !matches!(self, Self::Exec { .. })
    }
}

/// `HTTPGetAction.scheme`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// A success that the user should know about: a redirect that was not followed.
    Warning(String),
    /// What the kubelet writes after `probe failed: `.
    Failure(String),
    /// The question could not be asked; counts neither way.
    Error(String),
    /// The answer broke off; counts neither way.
    Broken(String),
}

impl Outcome {
    /// Whether it counts as a success.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Success | Self::Warning(_))
    }
}

/// A host and a port as they stand in a URL or a Go address.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
