//! The tasks of a part of the agent. They end with it; and an agent of which a part has panicked ends as a whole, so that
//! systemd starts it anew: its pods go on, and nobody takes a node for healthy that has no proxy any more.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::task::{JoinError, JoinHandle};

/// Tasks; dropping them ends them.
#[derive(Debug, Default)]
pub struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    /// One more.
    pub fn push(&mut self, task: JoinHandle<()>) {
        self.0.push(task);
    }
}

impl<T: IntoIterator<Item = JoinHandle<()>>> From<T> for Tasks {
    fn from(tasks: T) -> Self {
        Self(tasks.into_iter().collect())
    }
}

impl Extend<JoinHandle<()>> for Tasks {
    fn extend<T: IntoIterator<Item = JoinHandle<()>>>(&mut self, tasks: T) {
        self.0.extend(tasks);
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Waits until one of these tasks panics; some come to their end, as they should. To be asked once.
pub async fn panicked<'a>(parts: impl IntoIterator<Item = &'a mut Tasks>) -> JoinError {
    let mut running: FuturesUnordered<_> = parts.into_iter().flat_map(|tasks| &mut tasks.0).collect();
    loop {
        match running.next().await {
            Some(Err(error)) if error.is_panic() => return error,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_and_an_end_is_not() {
        let mut well = Tasks::from([tokio::spawn(async {}), tokio::spawn(std::future::pending())]);
        let mut ill = Tasks::from([tokio::spawn(async { panic!("on purpose") })]);
        assert!(panicked([&mut well, &mut ill]).await.is_panic());
    }

    #[tokio::test]
    async fn they_end_with_their_part() {
        let (held, mut seen) = tokio::sync::oneshot::channel::<()>();
        let tasks = Tasks::from([tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        })]);
        assert!(seen.try_recv().is_err_and(|error| error == tokio::sync::oneshot::error::TryRecvError::Empty));
        drop(tasks);
        assert!(seen.await.is_err());
    }
}
