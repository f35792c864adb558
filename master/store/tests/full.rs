//! A file system that fills up: writes are refused with the reason, reads go on, and once there is room everything goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::Nobody;
use store::{CommitError, Embedded, Encoded, Expect, Facets, Key, Options, Proposal, Store, Write};

/// A tmpfs with little room beside the journal, unmounted in the end.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount(&["-t", "tmpfs", "-o", "size=6m", "tmpfs"], folder.path());
        Self(folder)
    }

    fn grow(&self) {
        mount(&["-o", "remount,size=64m"], self.0.path());
    }

    fn open(&self) -> Store {
        // The committer of a store that was dropped may still be about to end.
        let opened = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            Embedded::open(self.0.path().join("store.db")).ok()
        });
        let backend = opened.expect("a store file that can be opened");
        Store::open(Arc::new(backend), Arc::new(Nobody), Options::default()).unwrap()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn mount(arguments: &[&str], on: &Path) {
    let status = Command::new("mount").args(arguments).arg(on).status().unwrap();
    assert!(status.success(), "mount {arguments:?}");
}

fn key(number: usize) -> Key {
    Key::new("things", "ns", &format!("{number}"))
}

async fn write(store: &Store, number: usize) -> Result<u64, CommitError> {
    let json = format!(r#"{{"metadata":{{"name":"{number}","filler":"{}"}}}}"#, "x".repeat(60_000));
    let value = Some(Encoded { json: json.into(), splice: 13 });
    let made = store
        .commit(Proposal {
            write: Write { key: key(number), value, expect: Expect::Absent, needs: None },
            facets: Facets::default(),
        })
        .await?;
    Ok(made.revision)
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let disk = Small::new();
    let store = disk.open();
    let mut revisions = Vec::new();
    let refused = loop {
        match write(&store, revisions.len()).await {
            Ok(revision) => revisions.push(revision),
            Err(error) => break error,
        }
        assert!(revisions.len() < 1_000, "the disk does not fill up");
    };
    assert!(revisions.len() > 3, "only {} writes fit", revisions.len());
    let CommitError::Backend(reason) = &refused else { panic!("{refused}") };
    assert!(reason.reason.contains("No space left on device"), "{reason}");
    // Again and again, with the same reason, while reads go on.
    for _ in 0..3 {
        let again = write(&store, revisions.len()).await.unwrap_err();
        assert!(again.to_string().contains("No space left on device"), "{again}");
        assert_eq!(store.get(&key(0)).unwrap().revision, revisions[0]);
    }
    disk.grow();
    for number in revisions.len()..revisions.len() + 20 {
        revisions.push(write(&store, number).await.unwrap());
    }
    assert!(revisions.is_sorted());
    drop(store);
    let store = disk.open();
    for (number, revision) in revisions.iter().enumerate() {
        assert_eq!(store.get(&key(number)).unwrap().revision, *revision);
    }
}
