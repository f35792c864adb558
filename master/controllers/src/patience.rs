//! How long to wait before looking again at what goes by itself.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// While it becomes less.
const SOON: Duration = Duration::from_secs(1);
/// When nothing of it goes: a finalizer may keep it for good (`finalizerEstimateSeconds`, of which a namespace waits half).
const LATEST: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, Copy)]
struct Seen {
    left: usize,
    pause: Duration,
}

/// What was left of each object's content when it was last looked at.
#[derive(Debug, Default)]
pub(crate) struct Patience(Mutex<HashMap<String, Seen>>);

impl Patience {
    /// So much is left of the object's content: the pause doubles while that does not fall.
    pub(crate) fn next(&self, object: &str, left: usize) -> Duration {
        let mut seen = self.lock();
        let before = seen.get(object).filter(|before| left >= before.left);
        let pause = before.map_or(SOON, |before| (before.pause * 2).min(LATEST));
        seen.insert(object.to_owned(), Seen { left, pause });
        pause
    }

    /// The object is gone, or goes now.
    pub(crate) fn forget(&self, object: &str) {
        self.lock().remove(object);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_become_less_is_looked_at_ever_more_seldom() {
        let patience = Patience::default();
        let pauses: Vec<u64> = [5, 3, 3, 3, 3, 3, 4, 2].map(|left| patience.next("a", left).as_secs()).into();
        assert_eq!(pauses, [1, 1, 2, 4, 8, 8, 8, 1]);
        assert_eq!(patience.next("b", 2).as_secs(), 1);
        patience.next("a", 2);
        patience.forget("a");
        assert_eq!(patience.next("a", 2).as_secs(), 1);
    }
}
