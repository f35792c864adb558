//! A store from a snapshot.
//!
//! Clients that were connected know revisions which the snapshot does not: had the restored store gone on from the snapshot's
//! revision, it would give them out again for other objects. So it begins far above, with every object written anew and no
//! history: whoever resumes is told that his revision is gone, and lists again (docs/adr/0017-restored-revisions.md).

use std::path::Path;
use std::{fs, io};

use redb::{Database, DatabaseError};

use super::{Embedded, LOG, META, REVISION, begin, failed, make, open, record, sync_folder};
use crate::{BackendError, Snapshot};

/// More writes than are ever made between a backup and its restoration (etcd's documentation advises the same number).
const AHEAD: u64 = 1_000_000_000;

/// What is in the place of a restored store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occupant {
    None,
    /// A store that no process has open, at this revision.
    Idle(u64),
    /// A process has it open.
    InUse,
    /// Files that are no store of a known version.
    Damaged(String),
}

impl Embedded {
    /// What is at `path`. A store's journal is moved into its database by looking.
    pub fn occupant(path: &Path) -> Occupant {
        if !path.exists() {
            return Occupant::None;
        }
        match Database::open(path) {
            Err(DatabaseError::DatabaseAlreadyOpen) => return Occupant::InUse,
            Err(error) => return Occupant::Damaged(error.to_string()),
            Ok(_) => {}
        }
        match Embedded::open(path) {
            Ok(store) => Occupant::Idle(store.inner().state.revision),
            Err(error) => Occupant::Damaged(error.reason),
        }
    }

    /// Makes a store at `path` with the snapshot's objects, above every revision that anybody may know: the snapshot's, `known` of
    /// the store that is replaced, and what an earlier restoration of the same snapshot has reached, which is why the time (in
    /// milliseconds, `now`) counts, too. What lay there is replaced by one rename. Answers with its revision.
    pub fn restore(path: &Path, snapshot: &Snapshot, known: u64, now: u64) -> Result<u64, BackendError> {
        let base = snapshot.revision.max(known).saturating_add(AHEAD).max(now);
        let whole = path.with_extension("restored");
        let removed = fs::remove_file(&whole);
        if let Err(error) =
            removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        {
            return Err(failed("restoring")(format!("{}: {error}", whole.display())));
        }
        make(&whole)?;
        let last = fill(&open(&whole)?, snapshot, base)?;
        // Frames of the old journal are older than all that the new database has: it would pass over them. It goes all the same.
        let journal = path.with_extension("journal");
        let placed = fs::rename(&whole, path).and_then(|()| match fs::remove_file(&journal) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_folder(path),
        });
        placed.map_err(|error| failed("restoring")(format!("{}: {error}", path.display())))?;
        Ok(last)
    }
}

fn fill(database: &Database, snapshot: &Snapshot, base: u64) -> Result<u64, BackendError> {
    let transaction = begin(database)?;
    let mut last = base;
    {
        let mut log = transaction.open_table(LOG).map_err(failed("restoring"))?;
        for object in &snapshot.records {
            last += 1;
            let bytes = record::encode(&object.key, object.value.as_ref());
            log.insert(last, bytes.as_slice()).map_err(failed("restoring"))?;
        }
        let mut meta = transaction.open_table(META).map_err(failed("restoring"))?;
        meta.insert(REVISION, last).map_err(failed("restoring"))?;
        meta.insert(super::COMPACTED, last).map_err(failed("restoring"))?;
    }
    transaction.commit().map_err(failed("restoring"))?;
    Ok(last)
}
