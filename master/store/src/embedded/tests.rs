use std::fs::File;
use std::io;

use super::{Embedded, LOG, META, REVISION, begin, record};
use crate::{Backend as _, Encoded, Expect, Key, Write};

fn put(name: &str, size: usize) -> Write {
    let json = format!(r#"{{"metadata":{{"name":"{}"}}}}"#, "x".repeat(size));
    Write {
        key: Key::new("pods", "a", name),
        expect: Expect::Present,
        needs: None,
        value: Some(Encoded { json: json.into(), splice: 13 }),
    }
}

#[test]
fn keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    crate::contract::check(|| Embedded::open(folder.path().join("store")).unwrap());
}

#[test]
fn the_file_does_not_grow_without_bound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Embedded::open(&path).unwrap();
    let first = Write { expect: Expect::Absent, ..put("x", 10_000) };
    store.commit(&[first]).unwrap()[0].unwrap();
    let batch: Vec<Write> = (0..50).map(|_| put("x", 10_000)).collect();
    let mut sizes = Vec::new();
    for _ in 0..40 {
        let last = store.commit(&batch).unwrap().pop().unwrap().unwrap();
        store.compact(last).unwrap();
        sizes.push(std::fs::metadata(&path).unwrap().len());
    }
    assert!(sizes[39] <= sizes[4] * 2, "20 MB were written: {sizes:?}");
}

#[test]
fn another_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    std::fs::write(&path, vec![7u8; 8_192]).unwrap();
    let error = Embedded::open(&path).err().unwrap();
    assert_eq!(error.operation, "opening");
}

fn names(store: &Embedded) -> Vec<(u64, String, bool)> {
    let mut found = Vec::new();
    store.load(&mut |r| found.push((r.revision, r.key.name().to_owned(), r.value.is_some()))).unwrap();
    found
}

#[test]
fn what_was_committed_is_there_again_wherever_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut wanted = Vec::new();
    // From a few in the journal to many times what it holds, batches too large for it, and deletions.
    for (round, size) in [(0, 10), (1, 900_000), (2, 100), (3, 3_000_000), (4, 5)] {
        let store = Embedded::open(&path).unwrap();
        for count in 0..4 {
            let name = format!("{round}-{count}-");
            let mut write = Write { expect: Expect::Absent, ..put("", size) };
            write.key = Key::new("pods", "a", &name);
            let gone = Write { value: None, expect: Expect::Present, ..write.clone() };
            let deletes = count % 2 == 1;
            let batch = if deletes { vec![write, gone] } else { vec![write] };
            for (index, result) in store.commit(&batch).unwrap().into_iter().enumerate() {
                wanted.push((result.unwrap(), name.clone(), index == 0));
            }
        }
    }
    assert_eq!(names(&Embedded::open(&path).unwrap()), wanted);
}

#[test]
fn the_journal_alone_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let write = Write { expect: Expect::Absent, ..put("x", 10) };
    let store = Embedded::open(&path).unwrap();
    store.commit(std::slice::from_ref(&write)).unwrap()[0].unwrap();
    names(&store);
    store.commit(&[Write { expect: Expect::Present, ..write }]).unwrap()[0].unwrap();
    drop(store);
    std::fs::remove_file(&path).unwrap();
    let error = Embedded::open(&path).err().unwrap().to_string();
    assert!(error.contains("they do not belong together"), "{error}");
}

#[test]
fn what_was_killed_while_it_was_made_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    std::fs::write(path.with_extension("new"), vec![0u8; 8_192]).unwrap();
    std::fs::write(path.with_extension("journal"), vec![0u8; 700]).unwrap();
    let store = Embedded::open(&path).unwrap();
    store.commit(&[Write { expect: Expect::Absent, ..put("x", 10) }]).unwrap()[0].unwrap();
    assert_eq!(names(&store).len(), 1);
}

fn new(name: &str) -> Write {
    Write { key: Key::new("pods", "a", name), expect: Expect::Absent, ..put("", 10) }
}

#[test]
fn nothing_is_acknowledged_after_a_sync_that_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Embedded::open(&path).unwrap();
    let mut acknowledged = vec![(store.commit(&[new("before")]).unwrap()[0].unwrap(), "before".to_owned(), true)];
    store.inner().journal.sync = |_| Err(io::Error::other("the disk is gone"));
    let refused = store.commit(&[new("refused-1"), new("refused-2"), new("refused-3")]).unwrap_err();
    assert!(refused.is_final && refused.reason.contains("the disk is gone"), "{refused:?}");
    // It may well say that it is well again.
    store.inner().journal.sync = File::sync_data;
    assert!(store.compact(100).is_err());
    for name in ["after-1", "after-2"] {
        match store.commit(&[new(name)]) {
            Ok(results) => acknowledged.push((results[0].unwrap(), name.to_owned(), true)),
            Err(error) => assert!(error.is_final, "{error:?}"),
        }
    }
    drop(store);
    let store = Embedded::open(&path).unwrap();
    acknowledged.push((store.commit(&[new("then")]).unwrap()[0].unwrap(), "then".to_owned(), true));
    drop(store);
    let found = names(&Embedded::open(&path).unwrap());
    for one in acknowledged {
        assert!(found.contains(&one), "{one:?} is lost: {found:?}");
    }
    assert!(found.is_sorted_by(|a, b| a.0 < b.0), "{found:?}");
}

#[test]
fn what_a_failed_transaction_left_gives_way_to_the_next_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Embedded::open(&path).unwrap();
    let first = store.commit(&[new("first")]).unwrap()[0].unwrap();
    store.compact(first).unwrap();
    {
        // Its commit was durable, and failed all the same.
        let database = store.inner().database.take().unwrap();
        let transaction = begin(&database).unwrap();
        for revision in first + 1..first + 4 {
            let refused = new(&format!("refused-{revision}"));
            let bytes = record::encode(&refused.key, refused.value.as_ref());
            transaction.open_table(LOG).unwrap().insert(revision, bytes.as_slice()).unwrap();
            transaction.open_table(META).unwrap().insert(REVISION, revision).unwrap();
        }
        transaction.commit().unwrap();
    }
    let second = store.commit(&[new("second")]).unwrap()[0].unwrap();
    drop(store);
    let found = names(&Embedded::open(&path).unwrap());
    assert_eq!(found, [(first, "first".to_owned(), true), (second, "second".into(), true)]);
}
