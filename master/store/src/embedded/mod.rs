//! The embedded backend: one redb file that holds the log, keyed by revision as etcd's is, and a [`journal`] before it.
//!
//! A batch is durable when it is in the journal; from there many are moved into the database in one transaction, which
//! writes a dozen pages and waits for the disk twice. Which record is the latest of its key is kept in memory and rebuilt
//! at start. Records that were superseded are queued by the revision that superseded them; compaction takes them from the
//! head of that queue, and redb reuses their pages.

mod journal;
pub(crate) mod record;
mod restore;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};

use journal::Journal;
pub use restore::Occupant;

use crate::{Backend, BackendError, Key, Mismatch, Position, Record, Write};

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
const COMPACTED: &str = "compacted";
const FORMAT: &str = "format";
/// 1 had no journal.
const FORMATS: std::ops::RangeInclusive<u64> = 1..=2;

/// redb's page cache; reads are served by our own cache, so that little is needed here.
const CACHE_BYTES: usize = 4 << 20;
/// How many records one compaction transaction removes, so that writes never wait long for it.
const COMPACT_STEP: usize = 4_096;
/// A file larger than this is rewritten at start when most of it is free.
const REWRITE_BYTES: u64 = 16 << 20;

/// A store in two files: the database and, beside it with the extension `journal`, what is not yet moved there.
pub struct Embedded {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    /// None after a failure: redb wants its file opened anew, and what the failed transaction left is not known.
    database: Option<Database>,
    journal: Journal,
    state: State,
}

/// What is known of the log without reading it.
#[derive(Debug, Default)]
struct State {
    revision: u64,
    compacted: u64,
    latest: HashMap<Key, u64>,
    superseded: VecDeque<Superseded>,
}

/// The record `victim` is of no use once history before `by` is forgotten.
#[derive(Debug, Clone, Copy)]
struct Superseded {
    by: u64,
    victim: u64,
}

impl Embedded {
    /// What this version writes; older formats are brought to it when they are opened.
    pub const FORMAT: u64 = *FORMATS.end();

    /// Opens the files or makes them. The folder must exist and be on a file system that honours fsync.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        let path = path.as_ref().to_path_buf();
        if !path.exists() {
            make(&path)?;
        }
        let mut database = open(&path)?;
        prepare(&database)?;
        let mut journal = Journal::open(&path.with_extension("journal")).map_err(failed("opening"))?;
        move_journal(&database, &mut journal, &[])?;
        let mut state = position(&database)?;
        read_log(&database, |record| state.note(&record.key, record.revision, record.value.is_none()))?;
        rewrite_if_sparse(&mut database, &path);
        Ok(Embedded { path, inner: Mutex::new(Inner { database: Some(database), journal, state }) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one transaction. Where it failed (a full disk, say), the file is opened anew before the next one.
    fn transact<T>(
        &self,
        inner: &mut Inner,
        work: impl FnOnce(&Database, &mut Journal) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let database = self.database(inner)?;
        let done = work(&database, &mut inner.journal);
        if done.is_ok() {
            inner.database = Some(database);
        }
        done
    }

    /// The database without what a failed transaction may have left.
    fn database(&self, inner: &mut Inner) -> Result<Database, BackendError> {
        match inner.database.take() {
            Some(database) => Ok(database),
            None => reopen(&self.path, inner.state.revision),
        }
    }

    /// Makes records durable, in the journal where they find room.
    fn write(&self, inner: &mut Inner, records: Vec<Vec<u8>>) -> Result<(), BackendError> {
        // Before the revisions of a failed transaction are used again, it must be gone from the database, which is believed
        // before the journal.
        inner.database = Some(self.database(inner)?);
        let first = inner.state.revision + 1;
        if inner.journal.append(first, &records).map_err(failed("commit"))? {
            return Ok(());
        }
        let more: Vec<_> = (first..).zip(records).collect();
        self.transact(inner, |database, journal| move_journal(database, journal, &more))
    }
}

impl State {
    /// Which writes are made, with which revisions; and the records of those.
    fn judge(&self, writes: &[Write]) -> (Vec<Result<u64, Mismatch>>, Vec<Vec<u8>>) {
        let mut pending: HashMap<&Key, Option<u64>> = HashMap::with_capacity(writes.len());
        let (mut results, mut records) = (Vec::with_capacity(writes.len()), Vec::with_capacity(writes.len()));
        let mut revision = self.revision;
        for write in writes {
            let result = self.check(write, &pending).map(|()| {
                revision += 1;
                pending.insert(&write.key, write.value.is_some().then_some(revision));
                records.push(record::encode(&write.key, write.value.as_ref()));
                revision
            });
            results.push(result);
        }
        (results, records)
    }

    fn check(&self, write: &Write, pending: &HashMap<&Key, Option<u64>>) -> Result<(), Mismatch> {
        let current = |key: &Key| pending.get(key).copied().unwrap_or_else(|| self.latest.get(key).copied());
        if let Some((key, expect)) = &write.needs {
            let current = current(key);
            if !expect.is_met(current) {
                return Err(Mismatch { current, of_needed: true });
            }
        }
        let current = current(&write.key);
        let is_met = write.expect.is_met(current) && (current.is_some() || write.value.is_some());
        if is_met { Ok(()) } else { Err(Mismatch { current, of_needed: false }) }
    }

    fn note(&mut self, key: &Key, revision: u64, deleted: bool) {
        let old = if deleted { self.latest.remove(key) } else { self.latest.insert(key.clone(), revision) };
        self.superseded.extend(old.map(|victim| Superseded { by: revision, victim }));
        if deleted {
            self.superseded.push_back(Superseded { by: revision, victim: revision });
        }
        self.revision = self.revision.max(revision);
    }
}

impl Backend for Embedded {
    fn load(&self, visit: &mut dyn FnMut(Record)) -> Result<Position, BackendError> {
        let mut inner = self.inner();
        self.transact(&mut inner, |database, journal| {
            move_journal(database, journal, &[])?;
            read_log(database, visit)
        })?;
        Ok(Position { revision: inner.state.revision, compacted: inner.state.compacted })
    }

    fn commit(&self, writes: &[Write]) -> Result<Vec<Result<u64, Mismatch>>, BackendError> {
        let mut inner = self.inner();
        let (results, records) = inner.state.judge(writes);
        if records.is_empty() {
            return Ok(results);
        }
        if let Err(error) = self.write(&mut inner, records) {
            return Err(BackendError { is_final: inner.journal.has_failed(), ..error });
        }
        for (write, result) in writes.iter().zip(&results) {
            if let Ok(revision) = result {
                inner.state.note(&write.key, *revision, write.value.is_none());
            }
        }
        Ok(results)
    }

    fn compact(&self, revision: u64) -> Result<(), BackendError> {
        loop {
            let mut inner = self.inner();
            let state = &inner.state;
            let target = revision.min(state.revision);
            if target <= state.compacted {
                return Ok(());
            }
            let due = state.superseded.iter().take_while(|s| s.by <= target).take(COMPACT_STEP).count();
            let last = due < COMPACT_STEP;
            let victims: Vec<u64> = state.superseded.iter().take(due).map(|s| s.victim).collect();
            let reached = match state.superseded.get(due.saturating_sub(1)) {
                Some(superseded) if !last => superseded.by,
                _ => target,
            };
            self.transact(&mut inner, |database, journal| {
                move_journal(database, journal, &[])?;
                remove(database, &victims, reached)
            })?;
            inner.state.superseded.drain(..due);
            inner.state.compacted = inner.state.compacted.max(reached);
            if last {
                return Ok(());
            }
        }
    }
}

fn open(path: &Path) -> Result<Database, BackendError> {
    let opened = Database::builder().set_cache_size(CACHE_BYTES).create(path);
    opened.map_err(|error| failed("opening")(format!("{}: {error}", path.display())))
}

/// Opens the file after a failure, and takes out what a transaction wrote that was not acknowledged: nobody saw it. What
/// of the journal was moved stays moved.
fn reopen(path: &Path, revision: u64) -> Result<Database, BackendError> {
    let database = open(path)?;
    if position(&database)?.revision > revision {
        let transaction = begin(&database)?;
        {
            let mut log = transaction.open_table(LOG).map_err(failed("opening"))?;
            log.retain_in(revision + 1.., |_, _| false).map_err(failed("opening"))?;
            let mut meta = transaction.open_table(META).map_err(failed("opening"))?;
            meta.insert(REVISION, revision).map_err(failed("opening"))?;
        }
        transaction.commit().map_err(failed("opening"))?;
    }
    tracing::info!(path = %path.display(), revision, "store file was opened again");
    Ok(database)
}

/// Removes records that were superseded, and notes how far history is forgotten.
fn remove(database: &Database, victims: &[u64], compacted: u64) -> Result<(), BackendError> {
    let transaction = begin(database)?;
    {
        let mut log = transaction.open_table(LOG).map_err(failed("compaction"))?;
        for victim in victims {
            log.remove(victim).map_err(failed("compaction"))?;
        }
        let mut meta = transaction.open_table(META).map_err(failed("compaction"))?;
        meta.insert(COMPACTED, compacted).map_err(failed("compaction"))?;
    }
    transaction.commit().map_err(failed("compaction"))
}

/// Moves what is in the journal into the database, and `more` behind it: records that found no room.
fn move_journal(database: &Database, journal: &mut Journal, more: &[(u64, Vec<u8>)]) -> Result<(), BackendError> {
    let last = position(database)?.revision;
    let records = journal.records(last).map_err(failed("reading"))?;
    if records.is_empty() && more.is_empty() {
        journal.clear();
        return Ok(());
    }
    let transaction = begin(database)?;
    {
        let mut log = transaction.open_table(LOG).map_err(failed("commit"))?;
        let mut meta = transaction.open_table(META).map_err(failed("commit"))?;
        for (revision, bytes) in records.iter().chain(more) {
            log.insert(revision, bytes.as_slice()).map_err(failed("commit"))?;
            meta.insert(REVISION, revision).map_err(failed("commit"))?;
        }
    }
    transaction.commit().map_err(failed("commit"))?;
    journal.clear();
    Ok(())
}

fn begin(database: &Database) -> Result<WriteTransaction, BackendError> {
    let mut transaction = database.begin_write().map_err(failed("commit"))?;
    transaction.set_durability(Durability::Immediate).map_err(failed("commit"))?;
    // Reopening after a crash is then instant, whatever the size of the file.
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Makes a new file under another name, so that one that is killed meanwhile is not taken for a damaged store.
fn make(path: &Path) -> Result<(), BackendError> {
    let new = path.with_extension("new");
    let unmade = |error: io::Error| failed("opening")(format!("{}: {error}", new.display()));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unmade(error)),
        _ => {}
    }
    prepare(&open(&new)?)?;
    fs::rename(&new, path).and_then(|()| sync_folder(path)).map_err(unmade)
}

/// Makes the name of a new file durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes the tables of a new file, and refuses a format that is not known.
fn prepare(database: &Database) -> Result<(), BackendError> {
    let transaction = begin(database)?;
    {
        transaction.open_table(LOG).map_err(failed("opening"))?;
        let mut meta = transaction.open_table(META).map_err(failed("opening"))?;
        let format = meta.get(FORMAT).map_err(failed("opening"))?.map(|value| value.value());
        if let Some(other) = format.filter(|format| !FORMATS.contains(format)) {
            return Err(failed("opening")(format!("format {other} is not known to this version")));
        }
        meta.insert(FORMAT, FORMATS.end()).map_err(failed("opening"))?;
    }
    transaction.commit().map_err(failed("opening"))
}

/// Where the database stands.
fn position(database: &Database) -> Result<State, BackendError> {
    let transaction = database.begin_read().map_err(failed("reading"))?;
    let meta = transaction.open_table(META).map_err(failed("reading"))?;
    let read = |name| meta.get(name).map(|value| value.map_or(1, |value| value.value())).map_err(failed("reading"));
    Ok(State { revision: read(REVISION)?, compacted: read(COMPACTED)?, ..State::default() })
}

fn read_log(database: &Database, mut visit: impl FnMut(Record)) -> Result<(), BackendError> {
    let transaction = database.begin_read().map_err(failed("reading"))?;
    let log = transaction.open_table(LOG).map_err(failed("reading"))?;
    for row in log.iter().map_err(failed("reading"))? {
        let (revision, bytes) = row.map_err(failed("reading"))?;
        let revision = revision.value();
        let record = record::decode(revision, bytes.value())
            .ok_or_else(|| failed("reading")(format!("record {revision} is damaged")))?;
        visit(record);
    }
    Ok(())
}

/// A failure is no reason not to start: the file is whole, only large.
fn rewrite_if_sparse(database: &mut Database, path: &Path) {
    let size = std::fs::metadata(path).map_or(0, |meta| meta.len());
    if size < REWRITE_BYTES {
        return;
    }
    let stored = database.begin_write().ok().and_then(|t| t.stats().ok()).map_or(size, |stats| stats.stored_bytes());
    if stored > size / 4 {
        return;
    }
    if let Err(error) = database.compact() {
        tracing::warn!(path = %path.display(), %error, "store file could not be made smaller");
    }
}

fn failed<E: ToString>(operation: &'static str) -> impl Fn(E) -> BackendError {
    move |error| BackendError { operation, reason: error.to_string(), is_final: false }
}

#[cfg(test)]
mod tests;
