//! The loop that every controller shares.

use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
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
        let pass = async { reconcile(key.clone()).await };
        // One object that is beyond a controller must not keep it from all others.
        match AssertUnwindSafe(pass).catch_unwind().await {
            Ok(Ok(outcome)) => {
                queue.forget(&key);
                if let Outcome::After(pause) = outcome {
                    queue.add_after(key.as_str(), pause);
                }
            }
            Ok(Err(Retry::Stale)) => queue.add_failed(key.as_str()),
            Ok(Err(Retry::Failed(error))) => {
                tracing::warn!(controller = name, key, %error, "reconciling failed, will be repeated");
                queue.add_failed(key.as_str());
            }
            Err(_) => {
                tracing::error!(controller = name, key, "reconciling panicked, will be repeated");
                queue.add_failed(key.as_str());
            }
        }
        queue.done(&key);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_over_one_key_keeps_no_other_from_its_turn() {
        let queue = WorkQueue::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let reconcile = move |key: String| {
            let log = Arc::clone(&log);
            async move {
                let count = {
                    let mut log = log.lock().unwrap();
                    log.push(key.clone());
                    log.iter().filter(|seen| **seen == key).count()
                };
                assert!(key != "bad" || count > 2, "beyond me");
                Ok::<_, Retry<Infallible>>(Outcome::Done)
            }
        };
        queue.add("bad");
        queue.add("good");
        let work = run_workers("test", queue, 1, reconcile);
        assert!(tokio::time::timeout(Duration::from_secs(600), work).await.is_err());
        assert_eq!(*seen.lock().unwrap(), ["bad", "good", "bad", "bad"]);
    }
}
