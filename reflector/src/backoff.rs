//! Exponential back-off with jitter.

use std::time::Duration;

use rand::Rng;

/// Pauses that double from a first to a last value; each is stretched by up to its own length, so that a thousand nodes
/// do not come back in the same second.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` to `last`.
    #[must_use]
    pub fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, next: first }
    }

    /// The pauses of client-go's reflector: 800 ms to 30 s.
    #[must_use]
    pub fn reflector() -> Self {
        Self::new(Duration::from_millis(800), Duration::from_secs(30))
    }

    /// Something worked: the next failure starts over.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let base = self.next;
        self.next = (base * 2).min(self.last);
        base.mul_f64(rand::rng().random_range(1.0..2.0))
    }

    /// Sleeps for the next pause.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_last_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for base in [1, 2, 4, 5, 5] {
            let pause = backoff.pause();
            assert!(pause >= Duration::from_secs(base) && pause < Duration::from_secs(2 * base), "{base}: {pause:?}");
        }
        backoff.reset();
        assert!(backoff.pause() < Duration::from_secs(2));
    }
}
