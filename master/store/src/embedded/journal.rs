//! The journal: where a batch of records is made durable, before it is moved into the database with many others.
//!
//! A file of a fixed size that was filled once, so that writing to it changes nothing but its content: one write and one
//! `fdatasync` a batch. Frames follow each other from the start, each at a [`SECTOR`]; when one no longer fits, all are moved and
//! the next one stands at the start again. What a frame leaves of older ones behind it is told by its revisions, which only grow.
//! A crash can tear the last frame, which nobody was told of; a broken frame with a newer one behind it is damage.
//!
//! A disk that has once refused to write is not asked again: after a failed `fdatasync` Linux takes the pages for clean, so that
//! the next one succeeds whatever is on the disk. The journal takes no more frames then and shows none, as PostgreSQL and etcd
//! do. What the failed frame is, is found out by whoever opens the journal next, and by nobody before: had others gone on, they
//! would have used its revisions again.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

const SIZE: usize = 2 << 20;
const SECTOR: usize = 512;
const MAGIC: u32 = u32::from_le_bytes(*b"KLJ1");
/// Magic, checksum of all that follows, size of the records, their number, the first one's revision.
const HEAD: usize = 4 + 4 + 4 + 4 + 8;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the journal is damaged at byte {0}")]
    Damaged(usize),
    #[error("the journal goes on at revision {first}, the database ends at {last}: they do not belong together")]
    Gap { first: u64, last: u64 },
    #[error("the disk refused to write before")]
    Failed,
}

pub(super) struct Journal {
    file: File,
    state: State,
    /// `fdatasync`; tests have it fail.
    pub sync: fn(&File) -> io::Result<()>,
}

enum State {
    /// Opened: what is in it must be [read](Journal::records) and moved before anything is appended.
    Unread,
    /// Where the next frame goes. What lies behind it is none of ours.
    Ends(usize),
    /// What is in it is not known.
    Failed,
}

impl Journal {
    /// Opens the file or makes it.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        // Secrets lie in it.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let there = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if there < SIZE {
            file.write_all_at(&vec![0; SIZE - there], there as u64)?;
            file.sync_all()?;
            super::sync_folder(path)?;
        }
        Ok(Journal { file, state: State::Unread, sync: File::sync_data })
    }

    /// Makes records durable, the first of them `first`. False when there is no room. A failure is the last thing that is heard
    /// of this journal.
    pub fn append(&mut self, first: u64, records: &[Vec<u8>]) -> Result<bool, JournalError> {
        let end = match self.state {
            State::Unread => return Ok(false),
            State::Ends(end) => end,
            State::Failed => return Err(JournalError::Failed),
        };
        let Some(frame) = frame(first, records).filter(|frame| end + frame.len() <= SIZE) else {
            return Ok(false);
        };
        self.state = State::Failed;
        self.file.write_all_at(&frame, end as u64)?;
        (self.sync)(&self.file)?;
        self.state = State::Ends(end + frame.len());
        Ok(true)
    }

    /// The records later than `last`, each with its revision.
    pub fn records(&self, last: u64) -> Result<Vec<(u64, Vec<u8>)>, JournalError> {
        let size = match self.state {
            State::Unread => SIZE,
            State::Ends(end) => end,
            State::Failed => return Err(JournalError::Failed),
        };
        let mut bytes = vec![0; size];
        self.file.read_exact_at(&mut bytes, 0)?;
        read(&bytes, last)
    }

    /// To be called when all records are durable elsewhere.
    pub fn clear(&mut self) {
        self.state = State::Ends(0);
    }

    pub fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed)
    }
}

/// `None` when it cannot fit any journal.
fn frame(first: u64, records: &[Vec<u8>]) -> Option<Vec<u8>> {
    let size = records.iter().map(|record| record.len() + 4).sum::<usize>();
    if size + HEAD > SIZE {
        return None;
    }
    let number = |number: usize| u32::try_from(number).ok().map(u32::to_le_bytes);
    let mut frame = Vec::with_capacity((HEAD + size).next_multiple_of(SECTOR));
    frame.extend_from_slice(&number(size)?);
    frame.extend_from_slice(&number(records.len())?);
    frame.extend_from_slice(&first.to_le_bytes());
    for record in records {
        frame.extend_from_slice(&number(record.len())?);
        frame.extend_from_slice(record);
    }
    let checksum = crc32fast::hash(&frame);
    frame.splice(0..0, [MAGIC.to_le_bytes(), checksum.to_le_bytes()].concat());
    frame.resize(frame.len().next_multiple_of(SECTOR), 0);
    Some(frame)
}

/// A frame that is whole.
struct Frame<'a> {
    revisions: Range<u64>,
    records: &'a [u8],
}

impl<'a> Frame<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (magic, rest) = number(bytes)?;
        let (checksum, rest) = number(rest)?;
        let (size, after) = number(rest)?;
        let (count, after) = number(after)?;
        let (first, after) = after.split_first_chunk()?;
        let records = after.get(..size as usize)?;
        let checked = rest.get(..HEAD - 8 + records.len())?;
        if magic != MAGIC || crc32fast::hash(checked) != checksum {
            return None;
        }
        let first = u64::from_le_bytes(*first);
        Some(Frame { revisions: first..first.checked_add(count.into())?, records })
    }

    fn sectors(&self) -> usize {
        (HEAD + self.records.len()).next_multiple_of(SECTOR)
    }

    fn split(&self) -> Option<Vec<(u64, Vec<u8>)>> {
        let mut rest = self.records;
        self.revisions
            .clone()
            .map(|revision| {
                let (size, after) = number(rest)?;
                let (record, after) = after.split_at_checked(size as usize)?;
                rest = after;
                Some((revision, record.to_vec()))
            })
            .collect()
    }
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), rest))
}

fn read(bytes: &[u8], last: u64) -> Result<Vec<(u64, Vec<u8>)>, JournalError> {
    let (mut at, mut next, mut found) = (0, None, Vec::new());
    while let Some(frame) = bytes.get(at..).and_then(Frame::read) {
        if next.is_some_and(|next| next != frame.revisions.start) {
            break;
        }
        if next.is_none() && frame.revisions.start > last + 1 {
            return Err(JournalError::Gap { first: frame.revisions.start, last });
        }
        found.extend(frame.split().ok_or(JournalError::Damaged(at))?);
        next = Some(frame.revisions.end);
        at += frame.sectors();
    }
    // Behind the end there is only what was moved before.
    let next = next.unwrap_or(0).max(last + 1);
    for (index, sector) in bytes.get(at..).unwrap_or_default().chunks(SECTOR).enumerate() {
        let here = at + index * SECTOR;
        let begins = sector.starts_with(&MAGIC.to_le_bytes());
        let frame = bytes.get(here..).filter(|_| begins).and_then(Frame::read);
        if frame.is_some_and(|frame| frame.revisions.start >= next) {
            return Err(JournalError::Damaged(at));
        }
    }
    found.retain(|(revision, _)| *revision > last);
    Ok(found)
}

#[cfg(test)]
mod tests;
