//! The harness that `make up`, the end-to-end tests, upstream's suites and the benches share: whole clusters on one machine, each host a network
//! namespace with its own containerd, and the audit that nothing of them is left. `machines` adds virtual machines with systemd to such a cluster.

pub mod bench;
pub mod conformance;
pub mod harness;
pub mod machines;
pub mod pages;
