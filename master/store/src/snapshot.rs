//! The objects of one moment as bytes, for backups: consistent while writes go on, without history.
//!
//! Magic, revision and number of objects; then each object's revision, size and record. Numbers are little-endian. Whoever keeps
//! it must also keep a checksum: there is none in it.

use std::collections::HashMap;

use crate::embedded::record;
use crate::{Backend, BackendError, Record, Store};

const MAGIC: &[u8; 8] = b"KLSNAP01";
/// A resource whose whole recent history went by while it was read is read again, this often.
const TRIES: usize = 5;

/// Why there is no snapshot.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum SnapshotError {
    #[error("writes are too many for a consistent copy")]
    Busy,
    #[error("not a snapshot of a store, or one of a later version")]
    Unknown,
    #[error("the snapshot is damaged at object {0}")]
    Damaged(u64),
}

/// Every object that lived at `revision`, in the order of their own revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub revision: u64,
    pub records: Vec<Record>,
}

impl Snapshot {
    /// Of a store that is in use.
    pub fn take(store: &Store) -> Result<Self, SnapshotError> {
        (0..TRIES).find_map(|_| Self::try_take(store)).ok_or(SnapshotError::Busy)
    }

    /// Of a store that nobody else has open.
    pub fn of(backend: &dyn Backend) -> Result<Self, BackendError> {
        let mut live = HashMap::new();
        let position = backend.load(&mut |record| {
            live.insert(record.key.clone(), record);
        })?;
        let mut records: Vec<Record> = live.into_values().filter(|record| record.value.is_some()).collect();
        records.sort_unstable_by_key(|record| record.revision);
        Ok(Snapshot { revision: position.revision, records })
    }

    /// `None` when history was forgotten meanwhile.
    fn try_take(store: &Store) -> Option<Self> {
        let revision = store.revision();
        let mut records = Vec::new();
        for (resource, _) in store.counts() {
            records.extend(store.all_at(&resource, revision).ok()?.iter().map(|entry| entry.record()));
        }
        records.sort_unstable_by_key(|record| record.revision);
        Some(Snapshot { revision, records })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.revision.to_le_bytes());
        out.extend_from_slice(&(self.records.len() as u64).to_le_bytes());
        for Record { revision, key, value } in &self.records {
            let bytes = record::encode(key, value.as_ref());
            out.extend_from_slice(&revision.to_le_bytes());
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(&bytes);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(SnapshotError::Unknown)?;
        let (revision, rest) = number(rest).ok_or(SnapshotError::Unknown)?;
        let (count, mut rest) = number(rest).ok_or(SnapshotError::Unknown)?;
        let mut records = Vec::new();
        for index in 0..count {
            let (record, after) = one(rest).ok_or(SnapshotError::Damaged(index))?;
            if record.value.is_none() || record.revision > revision {
                return Err(SnapshotError::Damaged(index));
            }
            records.push(record);
            rest = after;
        }
        if rest.is_empty() { Ok(Snapshot { revision, records }) } else { Err(SnapshotError::Damaged(count)) }
    }
}

fn one(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (revision, rest) = number(bytes)?;
    let (size, rest) = number(rest)?;
    let (bytes, rest) = rest.split_at_checked(usize::try_from(size).ok()?)?;
    Some((record::decode(revision, bytes)?, rest))
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Encoded, Key};

    fn snapshot() -> Snapshot {
        let record = |revision, name| {
            let value = Encoded { json: r#"{"metadata":{"name":"x"}}"#.into(), splice: 13 };
            Record { revision, key: Key::new("pods", "a", name), value: Some(value) }
        };
        Snapshot { revision: 9, records: vec![record(3, "x"), record(7, "y")] }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(Snapshot::decode(&snapshot().encode()), Ok(snapshot()));
        let empty = Snapshot { revision: 1, records: Vec::new() };
        assert_eq!(Snapshot::decode(&empty.encode()), Ok(empty));
    }

    #[test]
    fn a_part_is_not_taken_for_the_whole() {
        let bytes = snapshot().encode();
        for end in 0..bytes.len() {
            Snapshot::decode(&bytes[..end]).unwrap_err();
        }
        Snapshot::decode(&[bytes.as_slice(), b"x"].concat()).unwrap_err();
        assert_eq!(Snapshot::decode(b"another file"), Err(SnapshotError::Unknown));
    }
}
