//! What a durable store must do.

use bytes::Bytes;

use crate::Key;

/// An object's JSON without `metadata.resourceVersion`, and the offset just behind `"metadata":{` where it belongs: the
/// revision is known only when the object is committed. The metadata is never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    pub json: Bytes,
    pub splice: u32,
}

/// What a write expects to find under its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Any object, but one.
    Present,
    Absent,
    Revision(u64),
}

impl Expect {
    /// Whether a key at this revision is as expected; `None` where there is no object.
    pub fn is_met(self, current: Option<u64>) -> bool {
        match self {
            Expect::Present => current.is_some(),
            Expect::Absent => current.is_none(),
            Expect::Revision(revision) => current == Some(revision),
        }
    }
}

/// One write: a new value, or `None` to delete.
#[derive(Debug, Clone)]
pub struct Write {
    pub key: Key,
    pub expect: Expect,
    /// Another object without which the write is not made, and how that must be.
    pub needs: Option<(Key, Expect)>,
    pub value: Option<Encoded>,
}

/// One committed write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub revision: u64,
    pub key: Key,
    pub value: Option<Encoded>,
}

/// Where a store stands. An empty one is at revision 1, as etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub revision: u64,
    /// History before this revision is gone.
    pub compacted: u64,
}

/// A write did not find what it expected; `current` is the key's revision, `None` when there is no such object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch {
    pub current: Option<u64>,
    /// It is about what the write needs, not about its own key.
    pub of_needed: bool,
}

/// The storage itself failed. No later write builds on the batch; whether it is durable is known when the store is opened anew,
/// at the latest.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} of the store failed: {reason}")]
pub struct BackendError {
    pub operation: &'static str,
    pub reason: String,
    /// Nothing more is written before the store is opened anew.
    pub is_final: bool,
}

/// A durable log of writes with one revision counter. Calls block and come from one thread at a time. What it must do is
/// spelt out by [`crate::contract`].
pub trait Backend: Send + Sync + 'static {
    /// Visits the retained records in the order of their revisions: for each object that lived at the compacted
    /// revision the version of that time, then everything since.
    fn load(&self, visit: &mut dyn FnMut(Record)) -> Result<Position, BackendError>;

    /// Commits the writes in order as one durable transaction. Writes of one batch see each other. A write that does not
    /// find what it expects is left out and answered with [`Mismatch`]; the others are committed all the same.
    fn commit(&self, writes: &[Write]) -> Result<Vec<Result<u64, Mismatch>>, BackendError>;

    /// Forgets the history before `revision`; objects that live stay.
    fn compact(&self, revision: u64) -> Result<(), BackendError>;
}
