use super::Embedded;
use crate::{Backend as _, Encoded, Expect, Key, Write};

fn put(name: &str, size: usize) -> Write {
    let json = format!(r#"{{"metadata":{{"name":"{}"}}}}"#, "x".repeat(size));
    Write {
        key: Key::new("pods", "a", name),
        expect: Expect::Present,
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
