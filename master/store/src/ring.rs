//! The recent changes of one resource: as many as their number and their sizes allow.

use std::collections::VecDeque;
use std::collections::vec_deque::Iter;
use std::sync::Arc;

use crate::watch::Event;

/// How many changes are kept at most.
const MOST: usize = 16_384;
/// How much the versions may take that nothing but these changes keeps.
const BYTES: usize = 64 << 20;
/// How many changes keep what was made of them for watchers, and how much that may be.
const FRAMES: usize = 256;
const FRAME_BYTES: usize = 16 << 20;

/// Oldest first. Each change is counted when it comes and when it goes, whatever there is beside it.
#[derive(Default)]
pub(crate) struct Ring {
    changes: VecDeque<Arc<Event>>,
    bytes: usize,
    /// How many of the last changes keep their frames, and how large these may be.
    fresh: usize,
    fresh_bytes: usize,
    /// Changes up to this revision are no longer here.
    forgotten: u64,
}

impl Ring {
    pub(crate) fn new(forgotten: u64) -> Self {
        Ring { forgotten, ..Ring::default() }
    }

    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    pub(crate) fn push(&mut self, change: Arc<Event>) {
        self.bytes += change.superseded_bytes();
        self.fresh += 1;
        self.fresh_bytes += change.shown_bytes();
        self.changes.push_back(change);
        while self.fresh > FRAMES || (self.fresh > 1 && self.fresh_bytes > FRAME_BYTES) {
            self.pass_oldest();
        }
        while self.changes.len() > MOST || (self.changes.len() > 1 && self.bytes > BYTES) {
            self.pop();
        }
    }

    /// Drops the changes up to `revision`.
    pub(crate) fn forget(&mut self, revision: u64) {
        while self.changes.front().is_some_and(|oldest| oldest.revision() <= revision) {
            self.pop();
        }
        if self.changes.is_empty() {
            self.changes.shrink_to_fit();
        }
        self.forgotten = self.forgotten.max(revision);
    }

    /// The changes later than `revision`.
    pub(crate) fn since(&self, revision: u64) -> Iter<'_, Arc<Event>> {
        let first = self.changes.partition_point(|change| change.revision() <= revision);
        self.changes.range(first..)
    }

    fn pop(&mut self) {
        if self.fresh == self.changes.len() {
            self.pass_oldest();
        }
        if let Some(oldest) = self.changes.pop_front() {
            self.bytes -= oldest.superseded_bytes();
            self.forgotten = self.forgotten.max(oldest.revision());
        }
    }

    /// The oldest change that has its frames loses them.
    fn pass_oldest(&mut self) {
        let oldest = self.changes.len().checked_sub(self.fresh).and_then(|at| self.changes.get(at));
        if let Some(oldest) = oldest {
            oldest.pass();
            self.fresh -= 1;
            self.fresh_bytes -= oldest.shown_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{BYTES, FRAME_BYTES, MOST, Ring};
    use crate::watch::Event;
    use crate::{Encoded, Entry, Facets, Key};

    fn version(revision: u64, bytes: usize) -> Arc<Entry> {
        let json = format!(r#"{{"metadata":{{"name":"{}"}}}}"#, "x".repeat(bytes));
        let value = Encoded { json: json.into(), splice: 13 };
        Arc::new(Entry::new(Key::new("things", "a", "x"), revision, &value, Facets::default()))
    }

    /// Revisions 2 to `last`, each of which supersedes the one before.
    fn filled(last: u64, bytes: usize) -> Ring {
        let mut ring = Ring::default();
        let mut old = version(1, bytes);
        for revision in 2..=last {
            let new = version(revision, bytes);
            ring.push(Arc::new(Event::new(revision, Some(old), Some(Arc::clone(&new)))));
            old = new;
        }
        ring
    }

    #[test]
    fn changes_are_kept_by_number_and_by_size() {
        let small = filled(MOST as u64 + 11, 10);
        assert_eq!((small.changes.len(), small.forgotten()), (MOST, 11));
        let large = filled(201, 1 << 20);
        let held: usize = large.since(0).map(|change| change.old.as_ref().unwrap().json().len()).sum();
        assert!(held <= BYTES && held > BYTES - (4 << 20), "{held}");
        assert_eq!(large.forgotten(), 201 - large.changes.len() as u64);
        assert_eq!(large.since(199).count(), 2);
    }

    #[test]
    fn a_single_change_stays_whatever_its_size() {
        let ring = filled(3, BYTES + 1);
        assert_eq!((ring.changes.len(), ring.forgotten()), (1, 2));
    }

    #[test]
    fn large_changes_lose_their_frames_earlier() {
        let ring = filled(41, 1 << 20);
        assert!(ring.fresh_bytes <= FRAME_BYTES && ring.fresh >= 14, "{}", ring.fresh);
    }

    #[test]
    fn what_is_forgotten_is_counted_no_more() {
        let mut ring = filled(400, 1_000);
        ring.forget(390);
        assert_eq!((ring.changes.len(), ring.fresh), (10, 10));
        ring.forget(1_000);
        assert_eq!((ring.bytes, ring.fresh, ring.fresh_bytes, ring.forgotten()), (0, 0, 0, 1_000));
    }
}
