//! What every [`Backend`] must do, as one suite: call [`check`] with a function that opens the store, the same one again
//! each time. Panics when the backend breaks the contract.

use crate::{Backend, Encoded, Expect, Key, Mismatch, Position, Record, Write};

/// Runs every case; `open` must open an empty store the first time and the same store afterwards.
pub fn check<B: Backend>(mut open: impl FnMut() -> B) {
    let backend = open();
    starts_empty(&backend);
    numbers_writes_with_one_counter(&backend);
    compares_before_it_writes(&backend);
    sees_earlier_writes_of_the_batch(&backend);
    let before = load(&backend);
    drop(backend);
    let backend = open();
    assert_eq!(load(&backend), before, "a store that is opened again shows the same");
    keeps_what_lives_when_compacted(&backend);
    writes_only_beside_what_a_write_needs(&backend);
    let before = load(&backend);
    drop(backend);
    assert_eq!(load(&open()), before, "compaction is durable");
}

fn key(name: &str) -> Key {
    Key::new("configmaps", "default", name)
}

fn put(name: &str, text: &str, expect: Expect) -> Write {
    let json = format!(r#"{{"metadata":{{"name":"{text}"}}}}"#);
    Write { key: key(name), expect, needs: None, value: Some(Encoded { json: json.into(), splice: 13 }) }
}

fn delete(name: &str, expect: Expect) -> Write {
    Write { key: key(name), expect, needs: None, value: None }
}

fn mismatch(current: Option<u64>) -> Result<u64, Mismatch> {
    Err(Mismatch { current, of_needed: false })
}

fn needed(current: Option<u64>) -> Result<u64, Mismatch> {
    Err(Mismatch { current, of_needed: true })
}

fn load(backend: &dyn Backend) -> (Position, Vec<Record>) {
    let mut records = Vec::new();
    let position = backend.load(&mut |record| records.push(record));
    (position.unwrap_or_else(|error| broken(&error.to_string())), records)
}

fn commit(backend: &dyn Backend, writes: &[Write]) -> Vec<Result<u64, Mismatch>> {
    backend.commit(writes).unwrap_or_else(|error| broken(&error.to_string()))
}

#[allow(clippy::panic, reason = "a contract suite reports by panicking, as any test")]
fn broken(why: &str) -> ! {
    panic!("{why}")
}

fn starts_empty(backend: &dyn Backend) {
    assert_eq!(load(backend), (Position { revision: 1, compacted: 1 }, Vec::new()));
}

fn numbers_writes_with_one_counter(backend: &dyn Backend) {
    let results = commit(backend, &[put("a", "1", Expect::Absent), put("b", "1", Expect::Absent)]);
    assert_eq!(results, [Ok(2), Ok(3)]);
    assert_eq!(commit(backend, &[put("a", "2", Expect::Revision(2))]), [Ok(4)]);
    let (position, records) = load(backend);
    assert_eq!(position, Position { revision: 4, compacted: 1 });
    let seen: Vec<_> = records.iter().map(|r| (r.revision, r.key.name())).collect();
    assert_eq!(seen, [(2, "a"), (3, "b"), (4, "a")]);
}

fn compares_before_it_writes(backend: &dyn Backend) {
    let writes = [
        put("a", "x", Expect::Absent),
        put("a", "x", Expect::Revision(2)),
        put("none", "x", Expect::Present),
        delete("none", Expect::Present),
        delete("b", Expect::Revision(2)),
    ];
    let expected = [mismatch(Some(4)), mismatch(Some(4)), mismatch(None), mismatch(None), mismatch(Some(3))];
    assert_eq!(commit(backend, &writes), expected);
    assert_eq!(load(backend).0.revision, 4, "refused writes use no revision");
}

fn sees_earlier_writes_of_the_batch(backend: &dyn Backend) {
    let writes = [
        put("c", "1", Expect::Absent),
        put("c", "2", Expect::Absent),
        put("c", "3", Expect::Revision(5)),
        delete("b", Expect::Present),
        put("b", "new", Expect::Absent),
        delete("c", Expect::Present),
    ];
    let expected = [Ok(5), mismatch(Some(5)), Ok(6), Ok(7), Ok(8), Ok(9)];
    assert_eq!(commit(backend, &writes), expected);
}

fn keeps_what_lives_when_compacted(backend: &dyn Backend) {
    if let Err(error) = backend.compact(6) {
        broken(&error.to_string());
    }
    let (position, records) = load(backend);
    assert_eq!(position, Position { revision: 9, compacted: 6 });
    let seen: Vec<_> = records.iter().map(|r| (r.revision, r.key.name(), r.value.is_some())).collect();
    let since = [(7, "b", false), (8, "b", true), (9, "c", false)];
    assert_eq!(seen, [&[(3, "b", true), (4, "a", true), (6, "c", true)], since.as_slice()].concat());
    if let Err(error) = backend.compact(100) {
        broken(&error.to_string());
    }
    let (position, records) = load(backend);
    assert_eq!(position, Position { revision: 9, compacted: 9 });
    let seen: Vec<_> = records.iter().map(|r| (r.revision, r.key.name())).collect();
    assert_eq!(seen, [(4, "a"), (8, "b")]);
    assert_eq!(commit(backend, &[put("c", "again", Expect::Absent)]), [Ok(10)], "revisions never come twice");
}

fn writes_only_beside_what_a_write_needs(backend: &dyn Backend) {
    let beside = |name: &str, (needed, expect): (&str, Expect)| Write {
        needs: Some((key(needed), expect)),
        ..put(name, "beside", Expect::Absent)
    };
    let writes = [
        beside("d", ("none", Expect::Present)),
        beside("d", ("a", Expect::Revision(3))),
        beside("d", ("a", Expect::Revision(4))),
        beside("d", ("a", Expect::Revision(4))),
        delete("b", Expect::Present),
        beside("e", ("b", Expect::Present)),
        beside("e", ("d", Expect::Present)),
    ];
    let expected = [needed(None), needed(Some(4)), Ok(11), mismatch(Some(11)), Ok(12), needed(None), Ok(13)];
    assert_eq!(commit(backend, &writes), expected);
}
