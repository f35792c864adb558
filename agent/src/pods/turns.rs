//! How many things are begun at once. A burst of pods that all begin at once are all Ready at the end, and statuses, events and
//! containers wait for their sandboxes meanwhile; in turns, the first is Ready when one alone would be, and all are sooner. The same is true of
//! pods that are deleted.

use std::num::NonZero;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long a turn lasts at most. What takes longer goes on without it, and holds nobody up.
const LONGEST: Duration = Duration::from_secs(2);

/// Fewer leave processors idle while the runtime waits for the kernel; more gain nothing.
const PER_PROCESSOR: usize = 4;

/// A bound on work of one kind.
#[derive(Debug)]
pub struct Turns(Semaphore);

impl Turns {
    /// As many at once as this machine's processors can be kept busy with.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self(Semaphore::new(processors * PER_PROCESSOR))
    }

    /// Does something when its turn comes, in the order of asking.
    pub async fn take<T>(&self, work: impl Future<Output = T>) -> T {
        let turn = self.0.acquire().await;
        let mut work = pin!(work);
        if let Ok(done) = timeout(LONGEST, &mut work).await {
            return done;
        }
        drop(turn);
        work.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_than_allowed_are_under_way() {
        let (turns, now, most) = (Turns(Semaphore::new(3)), AtomicUsize::new(0), AtomicUsize::new(0));
        let work = async || {
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::time::sleep(LONGEST / 2).await;
            now.fetch_sub(1, SeqCst);
        };
        futures::future::join_all((0..10).map(|_| turns.take(work()))).await;
        assert_eq!((most.into_inner(), now.into_inner()), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_holds_nobody_up() {
        let turns = Arc::new(Turns(Semaphore::new(1)));
        let stuck = Arc::clone(&turns);
        let hanging = tokio::spawn(async move { stuck.take(std::future::pending::<()>()).await });
        tokio::task::yield_now().await;
        assert_eq!(turns.take(async { 7 }).await, 7);
        assert!(!hanging.is_finished());
        hanging.abort();
    }
}
