//! kill -9 at random moments: what was acknowledged is there, and nothing is torn.
//!
//! The writer is this test binary again, as a child; it prints each acknowledged write. `CRASH_ROUNDS` sets the number of
//! kills (20 when unset).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod common;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::Nobody;
use rand::Rng as _;
use store::{Backend as _, Embedded, Encoded, Expect, Facets, Key, Options, Proposal, Store, Write};

const FILE: &str = "CRASH_STORE";
const WRITERS: usize = 8;
const KEYS: u64 = 40;

fn value(round: u64, writer: usize, count: u64) -> Encoded {
    let filler = "x".repeat((count % 3_000) as usize);
    let json = format!(r#"{{"metadata":{{"name":"{round}/{writer}/{count}","filler":"{filler}"}}}}"#);
    Encoded { json: json.into(), splice: 13 }
}

/// Not a test of its own: the child that is killed.
#[test]
fn child_writes_until_it_is_killed() {
    let Ok(path) = std::env::var(FILE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let store = Store::open(Arc::new(Embedded::open(path).unwrap()), Arc::new(Nobody), Options::default()).unwrap();
    let store = Arc::new(store);
    let round = store.revision();
    runtime.block_on(async {
        let writers: Vec<_> = (0..WRITERS).map(|w| tokio::spawn(write_forever(Arc::clone(&store), round, w))).collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

async fn write_forever(store: Arc<Store>, round: u64, writer: usize) {
    for count in 0.. {
        let key = Key::new("things", "ns", &format!("{writer}-{}", count % KEYS));
        let existing = store.get(&key).map(|entry| entry.revision);
        let delete = count % 7 == 6 && existing.is_some();
        let value = (!delete).then(|| value(round, writer, count));
        let text = value.as_ref().map_or("-".to_owned(), |value| format!("{:x}", sum(&value.json)));
        let expect = existing.map_or(Expect::Absent, Expect::Revision);
        let write = Write { key: key.clone(), expect, needs: None, value };
        let entry = store.commit(Proposal { write, facets: Facets::default() }).await.unwrap();
        println!("ACK {} {} {text}", key.name(), entry.revision);
    }
}

fn sum(json: &[u8]) -> u64 {
    json.iter().fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let rounds: usize = std::env::var("CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut known: HashMap<String, (u64, String)> = HashMap::new();
    let mut acknowledged = 0;
    for round in 0..rounds {
        for line in one_life(&path) {
            let mut words = line.split(' ').map(str::to_owned);
            let (name, revision, text) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            known.insert(name, (revision.parse().unwrap(), text));
            acknowledged += 1;
        }
        let found = read(&path);
        for (name, (revision, text)) in &known {
            let (at, is) = found.get(name).unwrap_or_else(|| panic!("round {round}: {name} is lost"));
            // A later write may have become durable without its acknowledgement; a deletion tells the version it deleted.
            let kept = at > revision || (at == revision && is == text && text != "-");
            assert!(kept, "round {round}: {name} was acknowledged at {revision} as {text}, is at {at} as {is}");
        }
    }
    assert!(acknowledged > rounds, "the writers hardly wrote: {acknowledged}");
}

/// Lets a child write for a while, kills it, and returns what it acknowledged.
fn one_life(path: &Path) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_writes_until_it_is_killed", "--nocapture"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let lines = output.lines().map_while(Result::ok);
        lines.filter_map(|line| line.split_once("ACK ").map(|(_, rest)| rest.to_owned())).collect::<Vec<_>>()
    });
    std::thread::sleep(Duration::from_millis(rand::rng().random_range(30..400)));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut lines = reader.join().unwrap();
    // The last line may be cut off by the kill.
    lines.retain(|line| line.split(' ').count() == 3);
    lines.pop();
    lines
}

/// The last record of each key: its revision, and what its value adds up to.
fn read(path: &Path) -> HashMap<String, (u64, String)> {
    let store = Embedded::open(path).unwrap();
    let mut found = HashMap::new();
    store
        .load(&mut |record| {
            let text = record.value.map_or("-".to_owned(), |value| {
                assert!(value.json.starts_with(b"{") && value.json.ends_with(b"}}"), "torn: {:?}", record.key);
                format!("{:x}", sum(&value.json))
            });
            found.insert(record.key.name().to_owned(), (record.revision, text));
        })
        .unwrap();
    found
}
