//! The plugins against a real kernel, in network namespaces of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod bridge;
mod common;
mod portmap;
