//! Where the cluster's objects live: a durable log of revisions behind [`Backend`], and a multi-version cache in memory
//! that answers every read and feeds every watch.
//!
//! A write goes to one committer thread ([`Store::commit`]). The thread takes all writes that are waiting, has the backend
//! commit them in one durable transaction, applies them to the cache in the order of their revisions, tells the
//! [`Hooks`], and only then acknowledges: what was acknowledged survives a crash, and the next read sees it.
//!
//! One counter numbers the writes of all keys, as etcd's does; it is the `resourceVersion` of Kubernetes. About five
//! minutes of history are kept ([`Options::history`]), so that a watch can resume and a paginated list stays consistent,
//! across restarts too. It is less where it would be too large ([`Options::history_bytes`]): whoever asks for what is
//! forgotten lists again.

mod backend;
mod cache;
mod committer;
pub mod contract;
mod embedded;
mod entry;
mod history;
mod key;
mod ring;
mod snapshot;
mod watch;

pub use backend::{Backend, BackendError, Encoded, Expect, Mismatch, Position, Record, Write};
pub use cache::{ListError, ListRequest, Page, Size};
pub use committer::{CommitError, Hooks, Options, Proposal, Store};
pub use embedded::{Embedded, Occupant};
pub use entry::{Entry, Facets};
pub use key::Key;
pub use snapshot::{Snapshot, SnapshotError};
pub use watch::{Change, Delivery, Event, Filter, Lagged, Start, TooOld, Watch, WatchRequest};
