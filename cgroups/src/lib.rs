//! The cgroups of a node: where they lie, what is written to them, what is read from them.
//!
//! * [`name`]: names of the tree's levels and how the two drivers spell them. Pure.
//! * [`values`]: Kubernetes' resources to cgroup values to file contents. Pure.
//! * [`detect`]: which hierarchy this machine has.
//! * [`driver`]: the seam that the agent uses, and [`open`], which picks an implementation.
//! * [`v1`], [`v2`]: the cgroupfs drivers; the only writers.
//! * [`systemd`]: the systemd driver, for machines whose runtime uses it.
//! * [`stats`]: what is read back.
//!
//! Everything that touches files blocks; callers on an async runtime use a blocking thread.

pub mod detect;
pub mod driver;
mod error;
mod fs;
pub mod name;
pub mod stats;
pub mod systemd;
pub mod v1;
pub mod v2;
pub mod values;

pub use detect::Hierarchy;
pub use driver::{Driver, open, open_systemd};
pub use error::Error;
pub use name::{Naming, QosLevel, Tree};
pub use stats::{Depth, Stats};
pub use values::{Limit, Values};
