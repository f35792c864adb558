//! Pod workers on this machine, as root: against a containerd of their own, and disturbed against a runtime in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod api;
mod away;
mod containerd;
mod disturbed;
mod ended;
mod explained;
mod node;
mod objects;
mod pressure;
mod resize;
mod selinux;
mod statics;
