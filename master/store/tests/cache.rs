//! The store above its backend: read-your-writes, snapshots, watches, compaction.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod common;

use std::sync::Arc;

use common::Nobody;
use store::{
    Backend, Change, CommitError, Embedded, Encoded, Expect, Facets, Filter, Key, ListRequest, Options, Proposal, Size,
    Start, Store, Watch, WatchRequest, Write,
};

fn open(folder: &tempfile::TempDir) -> Store {
    let backend = Embedded::open(folder.path().join("store")).unwrap();
    Store::open(Arc::new(backend), Arc::new(Nobody), Options::default()).unwrap()
}

async fn write(store: &Store, name: &str, text: Option<&str>, expect: Expect) -> Result<u64, CommitError> {
    let value = text.map(|t| Encoded { json: format!(r#"{{"metadata":{{"name":"{t}"}}}}"#).into(), splice: 13 });
    let labels = Box::new([("text".into(), text.unwrap_or_default().into())]);
    let facets = Facets { labels, ..Facets::default() };
    let write = Write { key: Key::new("things", "a", name), expect, needs: None, value };
    store.commit(Proposal { write, facets }).await.map(|_| store.revision())
}

fn list(store: &Store, at: Option<u64>) -> Vec<String> {
    let request = ListRequest { resource: "things", namespace: "", after: None, limit: 0, at, filter: None };
    store.list(&request).unwrap().entries.iter().map(|e| e.key.name().to_owned()).collect()
}

fn watch(store: &Store, start: Start, filter: Option<Filter>, buffer: usize) -> Watch {
    let request = WatchRequest { resource: "things".into(), namespace: "a".into(), start, filter, buffer };
    store.watch(request).unwrap()
}

#[tokio::test]
async fn a_write_is_visible_when_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    write(&store, "x", Some("1"), Expect::Absent).await.unwrap();
    assert_eq!(list(&store, None), ["x"]);
    let refused = write(&store, "x", Some("2"), Expect::Absent).await.unwrap_err();
    assert!(matches!(refused, CommitError::Mismatch { current: Some(2), .. }), "{refused:?}");
}

#[tokio::test]
async fn the_past_can_be_listed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let first = write(&store, "x", Some("1"), Expect::Absent).await.unwrap();
    let second = write(&store, "y", Some("1"), Expect::Absent).await.unwrap();
    write(&store, "x", None, Expect::Present).await.unwrap();
    write(&store, "z", Some("1"), Expect::Absent).await.unwrap();
    assert_eq!(list(&store, Some(first)), ["x"]);
    assert_eq!(list(&store, Some(second)), ["x", "y"]);
    assert_eq!(list(&store, None), ["y", "z"]);
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let first = write(&store, "x", Some("1"), Expect::Absent).await.unwrap();
    write(&store, "x", Some("2"), Expect::Present).await.unwrap();
    write(&store, "x", None, Expect::Present).await.unwrap();
    drop(store);
    let store = loop {
        // The committer thread closes the file when it has seen that the store is gone.
        match Embedded::open(folder.path().join("store")) {
            Ok(backend) => break Store::open(Arc::new(backend), Arc::new(Nobody), Options::default()).unwrap(),
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let mut watch = watch(&store, Start::After(first), None, 8);
    let events = [watch.next().await.unwrap(), watch.next().await.unwrap()];
    assert_eq!(events.each_ref().map(|e| e.change), [Change::Modified, Change::Deleted]);
    let json = events[1].json();
    assert_eq!(json.as_ref(), br#"{"metadata":{"resourceVersion":"4","name":"2"}}"#);
    assert!(watch.is_drained());
}

#[tokio::test]
async fn filters_turn_changes_into_additions_and_deletions() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let filter: Filter = Arc::new(|entry| entry.facets.label("text") == Some("yes"));
    let mut watch = watch(&store, Start::Now, Some(filter), 8);
    write(&store, "x", Some("no"), Expect::Absent).await.unwrap();
    for text in ["yes", "yes", "no"] {
        write(&store, "x", Some(text), Expect::Present).await.unwrap();
    }
    let mut seen = Vec::new();
    while let Some(delivery) = watch.ready() {
        seen.push(delivery.change);
    }
    assert_eq!(seen, [Change::Added, Change::Modified, Change::Deleted]);
}

#[tokio::test]
async fn a_slow_watcher_is_dropped_and_nobody_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let mut slow = watch(&store, Start::Now, None, 2);
    for n in 0..5 {
        write(&store, &format!("x{n}"), Some("1"), Expect::Absent).await.unwrap();
    }
    assert!(slow.next().await.is_ok() && slow.next().await.is_ok());
    assert!(slow.next().await.is_err(), "it must watch again");
}

#[tokio::test]
async fn many_writers_are_committed_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&folder));
    let mut all = watch(&store, Start::Now, None, 4_096);
    let writers: Vec<_> = (0..32)
        .map(|w| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..20 {
                    write(&store, &format!("{w}-{n}"), Some("1"), Expect::Absent).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let mut last = 0;
    let mut count = 0;
    while let Some(delivery) = all.ready() {
        assert!(delivery.event.revision() > last);
        last = delivery.event.revision();
        count += 1;
    }
    assert_eq!((count, last), (640, store.revision()));
}

#[tokio::test]
async fn only_the_last_changes_keep_what_was_made_for_watchers() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let mut watch = watch(&store, Start::Now, None, 512);
    for name in 0..300 {
        write(&store, &name.to_string(), Some("1"), Expect::Absent).await.unwrap();
    }
    let mut deliveries = Vec::new();
    for _ in 0..300 {
        deliveries.push(watch.next().await.unwrap());
    }
    let is_kept = |at: usize| {
        let (one, other) = (deliveries[at].frame(), deliveries[at].frame());
        assert_eq!(one, other);
        let made = |_: &[u8]| Some(vec![0].into());
        let same =
            deliveries[at].transcoded(made).unwrap().as_ptr() == deliveries[at].transcoded(made).unwrap().as_ptr();
        assert_eq!(same, one.as_ptr() == other.as_ptr());
        same
    };
    assert_eq!([0, 43, 44, 299].map(is_kept), [false, false, true, true]);
}

#[tokio::test]
async fn history_that_is_too_large_is_forgotten_early_also_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Arc::new(Embedded::open(folder.path().join("store")).unwrap());
    let options = Options { history_bytes: 1 << 20, ..Options::default() };
    let store = Store::open(Arc::clone(&backend) as Arc<dyn Backend>, Arc::new(Nobody), options).unwrap();
    let large = "x".repeat(100_000);
    let first = write(&store, "x", Some(&large), Expect::Absent).await.unwrap();
    for _ in 0..40 {
        write(&store, "x", Some(&large), Expect::Present).await.unwrap();
    }
    let after = |revision| WatchRequest {
        resource: "things".into(),
        namespace: "a".into(),
        start: Start::After(revision),
        filter: None,
        buffer: 8,
    };
    assert!(store.watch(after(first)).is_err(), "it is told to list again");
    assert!(store.watch(after(store.revision() - 2)).is_ok());
    let mut records = 0;
    backend.load(&mut |_| records += 1).unwrap();
    assert!((2..=12).contains(&records), "{records} versions are kept");
}

#[tokio::test]
async fn the_size_of_a_resource_is_that_of_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    assert_eq!(store.size("things"), Size::default());
    write(&store, "a", Some("1"), Expect::Absent).await.unwrap();
    write(&store, "b", Some("22"), Expect::Absent).await.unwrap();
    let json = |name: &str| store.get(&Key::new("things", "a", name)).unwrap().json().len();
    assert_eq!(store.size("things"), Size { objects: 2, bytes: json("a") + json("b") });
    write(&store, "a", Some("a longer one"), Expect::Present).await.unwrap();
    assert_eq!(store.size("things").bytes, json("a") + json("b"));
    write(&store, "a", None, Expect::Present).await.unwrap();
    assert_eq!(store.size("things"), Size { objects: 1, bytes: json("b") });
}

#[tokio::test]
async fn the_pages_of_a_revision_are_its_list() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let mut revisions = Vec::new();
    // Names come, go and change, in no order.
    for step in 0..200_usize {
        let name = format!("n{}", step * 7 % 23);
        let text = (step % 3 != 0).then_some("1");
        if write(&store, &name, text, if text.is_some() && step % 2 == 0 { Expect::Absent } else { Expect::Present })
            .await
            .is_ok()
        {
            revisions.push(store.revision());
        }
    }
    for revision in revisions {
        let whole = list(&store, Some(revision));
        for limit in [1, 3, 100] {
            let (mut paged, mut after) = (Vec::new(), None::<Key>);
            loop {
                let after_text = after.as_ref().map(Key::as_str);
                let at = Some(revision);
                let request =
                    ListRequest { resource: "things", namespace: "a", after: after_text, limit, at, filter: None };
                let page = store.list(&request).unwrap();
                paged.extend(page.entries.iter().map(|entry| entry.key.name().to_owned()));
                assert_eq!(page.remaining, whole.len() - paged.len());
                if page.remaining == 0 {
                    break;
                }
                after = page.last;
            }
            assert_eq!(paged, whole, "{limit} at {revision}");
        }
    }
}
