//! What is tried again after a pause.

use std::time::Duration;

pub use reflector::Backoff;
use tokio::time::Instant;

/// Something that is tried again after a pause when it failed; the caller sleeps.
#[derive(Debug, Clone)]
pub struct Retry {
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Retry {
    /// Pauses from `first` to `last`.
    #[must_use]
    pub fn new(first: Duration, last: Duration) -> Self {
        Self { backoff: Backoff::new(first, last), not_before: None }
    }

    /// It worked.
    pub fn worked(&mut self) {
        self.backoff.reset();
        self.not_before = None;
    }

    /// It failed: a pause begins.
    pub fn failed(&mut self) {
        self.not_before = Some(Instant::now() + self.backoff.pause());
    }

    /// Whether no pause holds it up.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        self.not_before.is_none_or(|at| at <= Instant::now())
    }

    /// When the pause ends, or has ended.
    #[must_use]
    pub fn at(&self) -> Option<Instant> {
        self.not_before
    }
}

/// Sleeps until then; for ever where nothing is due.
pub async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
