//! What the scheduler and the controllers share: informers, work queues, the worker loop and the event recorder.
//!
//! Nothing here decides anything. An [`Informer`] keeps one trimmed copy of a kind in memory and tells its handlers what
//! changed; handlers put keys into a [`WorkQueue`]; [`run_workers`] takes keys out, never the same key twice at once, and
//! repeats what failed with a growing pause.

mod informer;
mod queue;
mod recorder;
mod worker;

pub use informer::{Change, Informer, Kind, key_of, split_key, trim_metadata};
pub use queue::WorkQueue;
pub use recorder::{EventType, Recorder, reference};
pub use worker::{Outcome, Retry, run_workers};

/// Whether the API server answered that the object does not exist.
#[must_use]
pub fn is_not_found(error: &kube::Error) -> bool {
    has_code(error, 404)
}

/// What came of a write, where it does not matter that the object is gone.
///
/// # Errors
/// Any other failure.
pub fn unless_gone<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Whether the API server refused a write because the object changed meanwhile, or exists already.
#[must_use]
pub fn is_conflict(error: &kube::Error) -> bool {
    has_code(error, 409)
}

/// Whether a create was refused because the name is taken.
#[must_use]
pub fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == "AlreadyExists")
}

/// Whether a write was refused because its namespace is being deleted or is gone: there is no point in repeating it.
#[must_use]
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    let refused = causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
        || status.message.contains("because it is being terminated");
    let is_gone = status.code == 404 && status.details.as_ref().is_some_and(|details| details.kind == "namespaces");
    status.code == 403 && refused || is_gone
}

fn has_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
