//! What folders hold, as `du` counts it. Counting can take long, so that it is done beside the one who asks, one folder
//! after the other, and is good for `volumeStatsAggPeriod`.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// How long somebody waits for folders that were never counted.
const PATIENCE: Duration = Duration::from_secs(2);
/// For how many periods a count is kept that nobody asks for.
const KEEP: u32 = 10;

/// What a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Files and folders.
    pub inodes: u64,
    /// When it was counted.
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    held: Held,
    at: Instant,
}

type Known = Arc<Mutex<HashMap<PathBuf, Counted>>>;

/// A memory of what folders hold.
pub struct DiskUsage {
    /// `None` when nothing is counted at all.
    period: Option<Duration>,
    known: Known,
    /// One counts at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl DiskUsage {
    /// A count is good for `period`; a period of zero is no counting, as upstream has it for negative ones.
    #[must_use]
    pub fn new(period: Duration) -> Self {
        Self { period: Some(period).filter(|period| !period.is_zero()), known: Known::default(), turn: Arc::default() }
    }

    /// What the folders hold, counted anew where that is due. A folder that takes long to count is given as it was, or
    /// is missing from the answer, and will be there later. What nobody asked for in a while is forgotten.
    pub async fn of(&self, folders: Vec<PathBuf>) -> HashMap<PathBuf, Held> {
        let Some(period) = self.period else { return HashMap::new() };
        let due = self.due(&folders, period);
        if !due.is_empty() {
            let (known, turn) = (Arc::clone(&self.known), Arc::clone(&self.turn));
            let counting = tokio::spawn(async move {
                let turn = turn.lock().await;
                // Blocking threads are few; one that counts is enough.
                let counted = tokio::task::spawn_blocking(move || count_all(&due, &known));
                drop(counted.await);
                drop(turn);
            });
            // It goes on when the patience ends.
            drop(tokio::time::timeout(PATIENCE, counting).await);
        }
        let known = lock(&self.known);
        folders.into_iter().filter_map(|path| known.get(&path).map(|counted| (path, counted.held))).collect()
    }

    fn due(&self, folders: &[PathBuf], period: Duration) -> Vec<PathBuf> {
        let mut known = lock(&self.known);
        known.retain(|_, counted| counted.at.elapsed() < period * KEEP);
        let fresh = |path: &PathBuf| known.get(path).is_some_and(|counted| counted.at.elapsed() < period);
        folders.iter().filter(|path| !fresh(path)).cloned().collect()
    }
}

fn lock(known: &Known) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Counted>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count_all(folders: &[PathBuf], known: &Known) {
    for folder in folders {
        match count(folder) {
            Ok(held) => drop(lock(known).insert(folder.clone(), Counted { held, at: Instant::now() })),
            Err(error) => {
                lock(known).remove(folder);
                tracing::debug!(%error, folder = %folder.display(), "cannot tell what a folder holds");
            }
        }
    }
}

/// Counts one folder: blocks, each file once, without other filesystems. Blocks the thread.
///
/// # Errors
/// The folder itself cannot be read; what vanishes inside of it meanwhile is no error.
pub fn count(folder: &Path) -> io::Result<Held> {
    let top = fs::symlink_metadata(folder)?;
    let device = top.dev();
    let mut linked = HashSet::new();
    let mut held = Held { at: Timestamp::now(), ..Held::default() };
    add(&top, &mut linked, &mut held);
    let mut folders = if top.is_dir() { vec![folder.to_owned()] } else { Vec::new() };
    while let Some(next) = folders.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != device {
                continue;
            }
            add(&meta, &mut linked, &mut held);
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(held)
}

fn add(meta: &Metadata, linked: &mut HashSet<u64>, held: &mut Held) {
    if !meta.is_dir() && meta.nlink() > 1 && !linked.insert(meta.ino()) {
        return;
    }
    held.bytes += meta.blocks() * 512;
    held.inodes += 1;
}

/// What the files directly in a folder hold.
#[must_use]
pub fn files_in(folder: &Path) -> Held {
    let mut held = Held { at: Timestamp::now(), ..Held::default() };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for meta in entries.filter_map(|entry| entry.metadata().ok()).filter(|meta| !meta.is_dir()) {
        held.bytes += meta.blocks() * 512;
        held.inodes += 1;
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_counted_once_and_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        fs::create_dir(path.join("sub")).unwrap();
        fs::write(path.join("sub/a"), vec![1; 8192]).unwrap();
        fs::hard_link(path.join("sub/a"), path.join("b")).unwrap();
        std::os::unix::fs::symlink("/usr", path.join("c")).unwrap();
        let held = count(&path).unwrap();
        // Two folders, one file with two names, one link.
        assert_eq!(held.inodes, 4);
        assert!((8192..64 << 10).contains(&held.bytes), "{held:?}");
        assert_eq!(files_in(&path).inodes, 2);

        let usage = DiskUsage::new(Duration::from_secs(60));
        let missing = path.join("missing");
        let first = usage.of(vec![path.clone(), missing.clone()]).await;
        assert_eq!(first.get(&path).map(|held| held.inodes), Some(4));
        assert!(!first.contains_key(&missing));
        fs::write(path.join("d"), "").unwrap();
        assert_eq!(usage.of(vec![path.clone()]).await, first, "it is fresh");
        assert!(DiskUsage::new(Duration::ZERO).of(vec![path]).await.is_empty());
    }
}
