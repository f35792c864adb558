//! How long to wait before something is tried again. Pure arithmetic: the level lies with the container itself.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::world::{Failure, NodeFacts};

/// A longer run starts the count again, whatever the longest delay is.
const RESET: Duration = Duration::from_secs(600);
/// Shortest and longest wait before a failed stage is tried again.
const STAGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Shortest and longest wait before an image is pulled again, by the number of failures.
const IMAGE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// Wait before a start that failed otherwise is tried again: something is missing that may be there by then.
const CONFIG: Duration = Duration::from_secs(10);

/// The next start of a container that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Not before this.
    pub at: Timestamp,
    /// How long the wait is in all.
    pub delay: Duration,
    /// The level of the new container.
    pub level: u32,
}

/// When a container that was started at `started` with back-off level `level` and ended at `finished` starts again: at
/// once after the first end and after a long run, else after 10 s, 20 s, 40 s, … 5 min.
#[must_use]
pub fn restart(node: &NodeFacts, level: u32, started: Timestamp, finished: Timestamp) -> Restart {
    let ran = finished.duration_since(started);
    if level == 0 || ran > signed(RESET) {
        return Restart { at: finished, delay: Duration::ZERO, level: 1 };
    }
    let delay = doubled(node.backoff_initial, node.backoff_max, level);
    Restart { at: later(finished, delay), delay, level: level.saturating_add(1) }
}

/// When a stage that failed is tried again.
#[must_use]
pub fn stage_retry(failure: &Failure) -> Timestamp {
    later(failure.at, doubled(STAGE.0, STAGE.1, failure.count))
}

/// When a container whose start failed is tried again.
#[must_use]
pub fn start_retry(failure: &Failure) -> Timestamp {
    let delay = if is_pull_failure(failure) { doubled(IMAGE.0, IMAGE.1, failure.count) } else { CONFIG };
    later(failure.at, delay)
}

/// When a failed pull is no longer shown as its error but as `ImagePullBackOff`: half of the shortest wait later, so
/// that clients get to see both; `None` for failures of other kinds.
#[must_use]
pub fn image_backoff_shown(failure: &Failure) -> Option<Timestamp> {
    is_pull_failure(failure).then(|| later(failure.at, IMAGE.0 / 2))
}

/// How often a stage has failed in a row, with the failure that is known of it and one for this reason. Pulls, whose waits get longer, are
/// counted by themselves, and anew with each image.
#[must_use]
pub fn failures(known: Option<&Failure>, reason: &str, spec_hash: Option<&str>) -> u32 {
    let same =
        |known: &&Failure| is_of_pulls(&known.reason) == is_of_pulls(reason) && known.spec_hash.as_deref() == spec_hash;
    known.filter(same).map_or(0, |known| known.count).saturating_add(1)
}

/// Only pulls burden a registry. An image that must not be pulled, or whose name is wrong, is looked for steadily.
fn is_pull_failure(failure: &Failure) -> bool {
    is_of_pulls(&failure.reason)
}

fn is_of_pulls(reason: &str) -> bool {
    matches!(reason, "ErrImagePull" | "RegistryUnavailable" | "SignatureValidationFailed")
}

fn doubled(initial: Duration, max: Duration, level: u32) -> Duration {
    let factor = 1_u32.checked_shl(level.saturating_sub(1)).unwrap_or(u32::MAX);
    initial.saturating_mul(factor).min(max)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(signed(by)).unwrap_or(Timestamp::MAX)
}

pub(crate) fn seconds_later(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_reset_after_a_long_run() {
        let node = NodeFacts::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let delays: Vec<u64> = (0..8).map(|level| restart(&node, level, at(0), at(1)).delay.as_secs()).collect();
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(restart(&node, 5, at(0), at(600)).delay.as_secs(), 160);
        assert_eq!(restart(&node, 5, at(0), at(601)), Restart { at: at(601), delay: Duration::ZERO, level: 1 });
        assert_eq!(restart(&node, u32::MAX, at(0), at(1)).delay.as_secs(), 300);
        let short = NodeFacts { backoff_max: Duration::from_secs(10), ..node };
        assert_eq!(restart(&short, 5, at(0), at(25)).delay.as_secs(), 10);
    }

    #[test]
    fn only_pulls_wait_longer_each_time() {
        let wait = |reason: &str, count| {
            let at = Timestamp::UNIX_EPOCH;
            let failure = Failure { reason: reason.to_owned(), message: String::new(), at, count, spec_hash: None };
            (start_retry(&failure).as_second(), image_backoff_shown(&failure).map(Timestamp::as_second))
        };
        assert_eq!([1, 2, 3, 6, 99].map(|count| wait("ErrImagePull", count).0), [10, 20, 40, 300, 300]);
        assert_eq!(wait("ErrImagePull", 3).1, Some(5));
        assert_eq!(wait("ErrImageNeverPull", 9), (10, None));
        assert_eq!(wait("InvalidImageName", 9), (10, None));
        assert_eq!(wait("CreateContainerConfigError", 9), (10, None));
    }

    #[test]
    fn pulls_are_counted_by_themselves_and_by_image() {
        let (at, message) = (Timestamp::UNIX_EPOCH, String::new());
        let known = |reason: &str| Failure {
            reason: reason.to_owned(),
            message: message.clone(),
            at,
            count: 7,
            spec_hash: Some("old".to_owned()),
        };
        let (pull, config) = (known("ErrImagePull"), known("CreateContainerConfigError"));
        assert_eq!(failures(None, "ErrImagePull", Some("old")), 1);
        assert_eq!(failures(Some(&pull), "RegistryUnavailable", Some("old")), 8);
        assert_eq!(failures(Some(&pull), "ErrImagePull", Some("new")), 1);
        assert_eq!(failures(Some(&config), "ErrImagePull", Some("old")), 1);
        assert_eq!(failures(Some(&config), "CreateContainerError", Some("old")), 8);
    }
}
