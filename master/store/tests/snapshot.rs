//! Snapshots of a store that is written to, and stores made from them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::Nobody;
use store::{
    Embedded, Encoded, Expect, Facets, Key, ListRequest, Occupant, Options, Proposal, Snapshot, Start, Store,
    WatchRequest, Write,
};

fn open(path: &Path) -> Arc<Store> {
    // The committer of a store that was dropped may still be about to end.
    let opened = (0..500).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        Embedded::open(path).ok()
    });
    let backend = opened.expect("a store file that can be opened");
    Arc::new(Store::open(Arc::new(backend), Arc::new(Nobody), Options::default()).unwrap())
}

async fn write(store: &Store, resource: &str, name: &str, text: &str) -> u64 {
    let key = Key::new(resource, "ns", name);
    let expect = if store.get(&key).is_some() { Expect::Present } else { Expect::Absent };
    let json = format!(r#"{{"metadata":{{"name":"{name}"}},"text":"{text}"}}"#);
    let value = Some(Encoded { json: json.into(), splice: 13 });
    let proposal = Proposal { write: Write { key, value, expect, needs: None }, facets: Facets::default() };
    store.commit(proposal).await.unwrap().revision
}

fn texts(store: &Store) -> BTreeMap<String, String> {
    ["left", "right"].into_iter().flat_map(|resource| listed(store, resource)).collect()
}

fn listed(store: &Store, resource: &str) -> Vec<(String, String)> {
    let request = ListRequest { resource, namespace: "", after: None, limit: 0, at: None, filter: None };
    let text = |json: &[u8]| {
        let json = std::str::from_utf8(json).unwrap();
        json.rsplit_once(r#""text":""#).unwrap().1.trim_end_matches("\"}").to_owned()
    };
    store.list(&request).unwrap().entries.iter().map(|e| (e.key.as_str().to_owned(), text(e.json()))).collect()
}

/// One writer counts in two resources by turns: a copy in which they are more than one apart, or the second one is ahead, is of no
/// single moment.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_under_writes_are_of_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store.db"));
    write(&store, "left", "x", "0").await;
    write(&store, "right", "x", "0").await;
    let stop = Arc::new(AtomicBool::new(false));
    let (writer, stopped) = (Arc::clone(&store), Arc::clone(&stop));
    let writing = tokio::spawn(async move {
        let mut count = 0_u64;
        while !stopped.load(Ordering::Relaxed) {
            count += 1;
            write(&writer, "left", "x", &count.to_string()).await;
            write(&writer, "right", "x", &count.to_string()).await;
        }
        count
    });
    let mut revisions = Vec::new();
    for round in 0..20 {
        let taken = Snapshot::take(&store).unwrap();
        let snapshot = Snapshot::decode(&taken.encode()).unwrap();
        assert_eq!(snapshot, taken);
        let path = folder.path().join(format!("copy{round}.db"));
        Embedded::restore(&path, &snapshot, 0, 0).unwrap();
        let found = texts(&open(&path));
        let (left, right): (u64, u64) =
            (found["/registry/left/ns/x"].parse().unwrap(), found["/registry/right/ns/x"].parse().unwrap());
        assert!(left == right || left == right + 1, "{left} and {right}");
        revisions.push(snapshot.revision);
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writing.await.unwrap() > 0);
    assert!(revisions.first() < revisions.last(), "{revisions:?}");
}

#[tokio::test]
async fn a_restored_store_never_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    assert_eq!(Embedded::occupant(&path), Occupant::None);
    let store = open(&path);
    write(&store, "left", "kept", "then").await;
    let snapshot = Snapshot::take(&store).unwrap();
    write(&store, "left", "kept", "later").await;
    let seen = write(&store, "left", "lost", "later").await;
    assert_eq!(Embedded::occupant(&path), Occupant::InUse);
    drop(store);

    let mut known = seen;
    for _ in 0..2 {
        let occupant = std::iter::repeat_with(|| Embedded::occupant(&path)).find(|o| *o != Occupant::InUse).unwrap();
        assert_eq!(occupant, Occupant::Idle(known));
        let restored = Embedded::restore(&path, &snapshot, known, 0).unwrap();
        assert!(restored > known);
        let store = open(&path);
        assert_eq!(texts(&store), BTreeMap::from([("/registry/left/ns/kept".to_owned(), "then".to_owned())]));
        assert!(store.get(&Key::new("left", "ns", "kept")).unwrap().revision > known);
        // A client that knows an old revision must list again.
        for old in [snapshot.revision, seen, known] {
            let start = Start::After(old);
            let request =
                WatchRequest { resource: "left".into(), namespace: String::new(), start, filter: None, buffer: 8 };
            assert!(store.watch(request).is_err(), "a watch goes on from {old}");
        }
        known = write(&store, "left", "new", "now").await;
        assert!(known > restored);
    }
    // The time alone also lifts it: a machine that has nothing of the store that was lost.
    let elsewhere = folder.path().join("elsewhere.db");
    let now = 1_800_000_000_000;
    assert!(Embedded::restore(&elsewhere, &snapshot, 0, now).unwrap() > now);
}

#[test]
fn what_is_no_store_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    std::fs::write(&path, "text").unwrap();
    assert!(matches!(Embedded::occupant(&path), Occupant::Damaged(_)), "{:?}", Embedded::occupant(&path));
}
