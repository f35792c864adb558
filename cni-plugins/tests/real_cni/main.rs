//! The plugins against a real kernel, in network namespaces of their own.

mod bridge;
mod common;
mod portmap;
