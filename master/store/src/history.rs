//! How much history there is, and what of it is to be forgotten: by age, by number, by size.

use std::collections::VecDeque;
use std::time::Instant;

use crate::Options;

/// How many marks there are in a history that is as large as it may be; so much more than asked for is forgotten at most.
const PARTS: u64 = 16;

/// A revision, when it was current, and how much had been written until then.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    revision: u64,
    written: u64,
}

/// What it does costs the same for each change, however many there are.
#[derive(Debug)]
pub(crate) struct History {
    /// Oldest first.
    marks: VecDeque<Mark>,
    /// The newest revision.
    revision: u64,
    /// How much was written since the start.
    written: u64,
    /// Up to where everything is forgotten, and how much had been written then.
    forgotten: u64,
    forgotten_written: u64,
}

impl History {
    /// Of what is there at the start nothing is known but that it is older than the first mark.
    pub(crate) fn new(revision: u64) -> Self {
        History { marks: VecDeque::new(), revision, written: 0, forgotten: 0, forgotten_written: 0 }
    }

    /// So much was committed, the last of it with `revision`.
    pub(crate) fn grew(&mut self, bytes: usize, revision: u64, options: &Options) {
        self.written += bytes as u64;
        self.revision = revision;
        let marked = self.marks.back().map_or(self.forgotten_written, |mark| mark.written);
        if self.written - marked >= options.history_bytes / PARTS {
            self.mark(Instant::now());
        }
    }

    /// Notes where history is at this time.
    pub(crate) fn mark(&mut self, at: Instant) {
        if self.marks.back().is_none_or(|last| last.revision < self.revision) {
            self.marks.push_back(Mark { at, revision: self.revision, written: self.written });
        }
    }

    fn bytes(&self) -> u64 {
        self.written - self.forgotten_written
    }

    pub(crate) fn is_too_large(&self, options: &Options) -> bool {
        self.bytes() > options.history_bytes
    }

    /// The revision up to which everything is to be forgotten, if that is more than before. What is too large is forgotten
    /// a little further, so that it is not too large again with the next change.
    pub(crate) fn forget(&mut self, now: Instant, options: &Options) -> Option<u64> {
        let most = options.history_bytes - if self.is_too_large(options) { options.history_bytes / PARTS } else { 0 };
        let mut target = self.revision.saturating_sub(options.history_revisions).max(self.forgotten);
        while let Some(mark) = self.marks.front() {
            if now.duration_since(mark.at) < options.history && self.bytes() <= most {
                break;
            }
            target = target.max(mark.revision);
            self.forgotten_written = mark.written;
            self.marks.pop_front();
        }
        let is_more = target > self.forgotten;
        self.forgotten = target;
        is_more.then_some(target)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::History;
    use crate::Options;

    fn options() -> Options {
        let history = Duration::from_secs(300);
        Options { history, history_revisions: 1_000, history_bytes: 1_600, ..Options::default() }
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let (start, options) = (Instant::now(), options());
        let mut history = History::new(1);
        for minute in 1..=5 {
            history.grew(1, 10 * minute, &options);
            history.mark(start + Duration::from_secs(60 * minute));
            assert_eq!(history.forget(start + Duration::from_secs(60 * minute), &options), None);
        }
        assert_eq!(history.forget(start + Duration::from_secs(60 * 7), &options), Some(20));
        assert_eq!(history.forget(start + Duration::from_secs(60 * 7), &options), None, "that was said before");
    }

    #[test]
    fn no_more_than_so_many_revisions_are_kept() {
        let (now, options) = (Instant::now(), options());
        let mut history = History::new(1);
        history.grew(1, 1_234, &options);
        assert_eq!(history.forget(now, &options), Some(234));
    }

    #[test]
    fn what_is_too_large_is_forgotten_early_and_a_little_further() {
        let (now, options) = (Instant::now(), options());
        let mut history = History::new(1);
        let mut forgotten = Vec::new();
        for revision in 2..=60 {
            history.grew(100, revision, &options);
            if history.is_too_large(&options) {
                history.mark(now);
                forgotten.push((revision, history.forget(now, &options).unwrap()));
                assert!(history.bytes() <= options.history_bytes);
            }
        }
        assert_eq!(forgotten.first(), Some(&(18, 3)), "17 of 100 are too many, 15 may stay");
        assert_eq!(forgotten.len(), 22, "not with every change: {forgotten:?}");
    }

    #[test]
    fn a_batch_that_is_too_large_alone_is_forgotten_once() {
        let (now, options) = (Instant::now(), options());
        let mut history = History::new(1);
        history.grew(10_000, 300, &options);
        history.mark(now);
        assert_eq!(history.forget(now, &options), Some(300));
        history.grew(1, 301, &options);
        assert!(!history.is_too_large(&options));
    }
}
