//! The loop that every controller shares.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use crate::WorkQueue;

/// How a pass over one key ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until something changes.
    Done,
    /// Look again after this time, because Kubernetes says that something happens then.
    After(Duration),
}

/// How a pass over one key failed.
#[derive(Debug)]
pub enum Retry<E> {
    /// The world moved on between reading and writing; look again at once, it is no error.
    Stale,
    /// It failed; look again after the back-off.
    Failed(E),
}

impl From<kube::Error> for Retry<kube::Error> {
    fn from(error: kube::Error) -> Self {
        if crate::is_conflict(&error) { Self::Stale } else { Self::Failed(error) }
    }
}

/// Runs `workers` loops that take keys from the queue and reconcile them, for ever. Dropping the future ends it.
pub async fn run_workers<F, R, E>(name: &'static str, queue: Arc<WorkQueue>, workers: usize, reconcile: F)
where
    F: Fn(String) -> R,
    R: Future<Output = Result<Outcome, Retry<E>>>,
    E: Display,
{
    join_all((0..workers).map(|_| work(name, &queue, &reconcile))).await;
}

async fn work<F, R, E>(name: &'static str, queue: &WorkQueue, reconcile: &F)
where
    F: Fn(String) -> R,
    R: Future<Output = Result<Outcome, Retry<E>>>,
    E: Display,
{
    loop {
        let key = queue.next().await;
        match reconcile(key.clone()).await {
            Ok(outcome) => {
                queue.forget(&key);
                if let Outcome::After(pause) = outcome {
                    queue.add_after(key.as_str(), pause);
                }
            }
            Err(Retry::Stale) => queue.add_failed(key.as_str()),
            Err(Retry::Failed(error)) => {
                tracing::warn!(controller = name, key, %error, "reconciling failed, will be repeated");
                queue.add_failed(key.as_str());
            }
        }
        queue.done(&key);
    }
}
