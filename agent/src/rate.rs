//! Token buckets: so many a second, and a burst.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket. One that is empty makes some wait, and turns others away.
#[derive(Debug)]
pub struct TokenBucket {
    /// Time that one token takes to grow; `None` for no limit.
    interval: Option<Duration>,
    burst: u32,
    /// The moment at which the bucket would be full.
    full_at: Instant,
}

impl TokenBucket {
    /// `qps` of 0 (or less) is no limit, as in `eventRecordQPS`.
    #[must_use]
    pub fn per_second(qps: i32, burst: i32) -> Self {
        let interval = u32::try_from(qps).ok().filter(|qps| *qps > 0).map(|qps| Duration::from_secs(1) / qps);
        let burst = u32::try_from(burst).unwrap_or(1).max(1);
        Self { interval, burst, full_at: Instant::now() }
    }

    /// Takes a token if there is one.
    pub fn try_take(&mut self) -> bool {
        let Some(interval) = self.interval else { return true };
        let now = Instant::now();
        let full_at = self.full_at.max(now) + interval;
        let there = full_at.saturating_duration_since(now) <= interval * self.burst;
        if there {
            self.full_at = full_at;
        }
        there
    }

    /// Takes a token that may be yet to grow, and says how long that takes.
    pub fn reserve(&mut self) -> Duration {
        let Some(interval) = self.interval else { return Duration::ZERO };
        let now = Instant::now();
        let full_at = self.full_at.max(now) + interval;
        let room = interval * self.burst;
        self.full_at = full_at;
        full_at.saturating_duration_since(now).saturating_sub(room)
    }

    /// Takes a token, waiting for it where there is none.
    pub async fn take(&mut self) {
        let wait = self.reserve();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_free_and_the_rest_is_paced() {
        let mut bucket = TokenBucket::per_second(10, 5);
        let start = Instant::now();
        for _ in 0..5 {
            bucket.take().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..10 {
            bucket.take().await;
        }
        // tokio's clock ticks in milliseconds.
        assert!(start.elapsed() >= Duration::from_secs(1) && start.elapsed() < Duration::from_millis(1100));
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_bucket_turns_away() {
        let mut bucket = TokenBucket::per_second(5, 2);
        assert_eq!([bucket.try_take(), bucket.try_take(), bucket.try_take()], [true, true, false]);
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!([bucket.try_take(), bucket.try_take()], [true, false]);
        assert!(TokenBucket::per_second(0, 0).try_take());
    }

    #[tokio::test(start_paused = true)]
    async fn no_rate_is_no_limit() {
        let mut bucket = TokenBucket::per_second(0, 0);
        let start = Instant::now();
        for _ in 0..1000 {
            bucket.take().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
