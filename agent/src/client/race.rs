//! Several ways to the same end: the first that gets there counts.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};

/// One way, under way.
pub(super) type Attempt<'a, T, E> = BoxFuture<'a, Result<T, E>>;

/// Sets off on the ways in their order, each when the one before has failed or has not arrived within `head_start`, and answers the first
/// that arrives. Where none does, the error is the first one's; `None` where there is no way.
pub(super) async fn race<T, E>(ways: Vec<Attempt<'_, T, E>>, head_start: Duration) -> Option<Result<T, E>> {
    let mut waiting = ways.into_iter();
    let mut under_way = FuturesUnordered::new();
    under_way.push(waiting.next()?);
    let mut first_failure = None;
    loop {
        // Cancel-safe: what is under way stays in the set, and a head start that is cut short was cut by a failure.
        tokio::select! {
            biased;
            Some(ended) = under_way.next() => match ended {
                Ok(arrived) => return Some(Ok(arrived)),
                Err(error) => { first_failure.get_or_insert(error); }
            },
            () = tokio::time::sleep(head_start), if waiting.len() > 0 => {}
        }
        match waiting.next() {
            Some(next) => under_way.push(next),
            None if under_way.is_empty() => return first_failure.map(Err),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    const HEAD_START: Duration = Duration::from_secs(1);

    fn way(seconds: u64, end: Result<u32, &'static str>) -> Attempt<'static, u32, &'static str> {
        Box::pin(async move {
            sleep(Duration::from_secs(seconds)).await;
            end
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_way_that_fails_gives_way_at_once_and_a_slow_one_after_its_head_start() {
        let begun = Instant::now();
        let none: Vec<Attempt<'_, u32, &str>> = Vec::new();
        assert_eq!(race(none, HEAD_START).await, None);
        let failing = vec![way(0, Err("a")), way(0, Err("b")), way(0, Ok(3))];
        assert_eq!(race(failing, HEAD_START).await, Some(Ok(3)));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        // Nobody answers at the first two; they are not waited for.
        assert_eq!(race(vec![way(60, Ok(1)), way(60, Ok(2)), way(0, Ok(3))], HEAD_START).await, Some(Ok(3)));
        assert_eq!(begun.elapsed(), 2 * HEAD_START);
        // A slow first one is the first all the same, where it comes before the others.
        assert_eq!(race(vec![way(2, Ok(1)), way(5, Ok(2))], HEAD_START).await, Some(Ok(1)));
        assert_eq!(race(vec![way(3, Err("slow")), way(0, Err("fast"))], HEAD_START).await, Some(Err("fast")));
    }
}
