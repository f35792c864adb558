pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod replica_set;
pub(crate) mod shared;
pub mod stateful_set;
