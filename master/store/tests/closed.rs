//! A backend that takes no more writes: the store says so, and goes on to be read.

#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::Nobody;
use store::{
    Backend, BackendError, CommitError, Encoded, Expect, Facets, Key, Mismatch, Options, Position, Proposal, Record,
    Store, Write,
};

/// Takes one batch; the disk fails with the next.
#[derive(Default)]
struct Dying(AtomicUsize);

impl Backend for Dying {
    fn load(&self, _: &mut dyn FnMut(Record)) -> Result<Position, BackendError> {
        Ok(Position { revision: 1, compacted: 1 })
    }

    fn commit(&self, writes: &[Write]) -> Result<Vec<Result<u64, Mismatch>>, BackendError> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => Ok((2..).zip(writes).map(|(revision, _)| Ok(revision)).collect()),
            _ => Err(BackendError { operation: "commit", reason: "the disk is gone".into(), is_final: true }),
        }
    }

    fn compact(&self, _: u64) -> Result<(), BackendError> {
        Ok(())
    }
}

async fn write(store: &Store, name: &str) -> Result<u64, CommitError> {
    let value = Some(Encoded { json: format!(r#"{{"metadata":{{"name":"{name}"}}}}"#).into(), splice: 13 });
    let write = Write { key: Key::new("things", "ns", name), value, expect: Expect::Absent, needs: None };
    Ok(store.commit(Proposal { write, facets: Facets::default() }).await?.revision)
}

#[tokio::test]
async fn a_store_whose_backend_has_failed_for_good_is_closed() {
    let store = Store::open(Arc::new(Dying::default()), Arc::new(Nobody), Options::default()).unwrap();
    assert_eq!(write(&store, "a").await.unwrap(), 2);
    assert!(store.is_open());
    let refused = write(&store, "b").await.unwrap_err();
    assert!(matches!(&refused, CommitError::Backend(why) if why.reason == "the disk is gone"), "{refused}");
    store.closed().await;
    assert!(!store.is_open());
    assert!(matches!(write(&store, "c").await, Err(CommitError::Closed)));
    assert_eq!(store.get(&Key::new("things", "ns", "a")).unwrap().revision, 2);
}
