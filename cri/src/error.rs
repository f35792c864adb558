use tonic::Code;

/// A CRI call that the runtime refused or never answered.
#[derive(Debug, thiserror::Error)]
#[error("{rpc}: {}: {}", code_name(.status.code()), .status.message())]
pub struct CallError {
    /// The rpc's name, e.g. `RunPodSandbox`.
    pub rpc: &'static str,
    /// What the runtime answered. Boxed: a status is large and errors are rare.
    pub status: Box<tonic::Status>,
}

impl CallError {
    pub(crate) fn new(rpc: &'static str, status: tonic::Status) -> Self {
        Self { rpc, status: Box::new(status) }
    }

    /// The runtime's own text, as a kubelet puts it into events and statuses.
    #[must_use]
    pub fn message(&self) -> &str {
        self.status.message()
    }

    /// The same error as gRPC clients in Go print it: `rpc error: code = NotFound desc = …`.
    #[must_use]
    pub fn rpc_text(&self) -> String {
        format!("rpc error: code = {} desc = {}", code_name(self.status.code()), self.status.message())
    }

    /// The text that kubelets show of a failed pull: without the code where that is `Unknown`, which says nothing.
    #[must_use]
    pub fn pull_text(&self) -> String {
        if self.status.code() == Code::Unknown { self.message().to_owned() } else { self.rpc_text() }
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status.code() == Code::NotFound
    }

    /// The runtime does not know this rpc (an older containerd).
    #[must_use]
    pub fn is_unimplemented(&self) -> bool {
        self.status.code() == Code::Unimplemented
    }

    /// The time that was given passed: the code alone says so, any text may be that of a program.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        self.status.code() == Code::DeadlineExceeded
    }

    /// The runtime is away or restarting: the same call may succeed later.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self.status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
            || (self.status.code() == Code::Unknown && self.status.message().contains("transport error"))
    }
}

/// The runtime endpoint in the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("container runtime endpoint {0:?} is not of the form unix:///path/to/socket")]
    NotUnix(String),
}

/// A gRPC code's name as grpc-go prints it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
