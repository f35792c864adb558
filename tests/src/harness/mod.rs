//! A cluster on this machine. Its hosts are network namespaces joined by a bridge; the master lives in one, each worker machine
//! in another with a containerd and an agent of its own. Nothing outside of these namespaces and two folders is touched.
//!
//! | file | does |
//! |---|---|
//! | `layout` | names and paths of everything a cluster has |
//! | `shell` | runs commands, with errors that say what failed |
//! | `host` | namespaces, bridge, addresses, routes |
//! | `process` | programs that outlive us, told apart from others by pid and start time |
//! | `containerd` | one containerd a worker machine |
//! | `images` | builds and imports the images |
//! | `registry` | a registry for tests that must pull |
//! | `cluster` | up, join, down |
//! | `upstream`, `stock` | builds the stock components, and runs them as parts of a cluster |
//! | `sweep` | removes what is left when processes have ended |
//! | `audit` | what is on the machine, before and after |

pub mod audit;
pub mod cluster;
pub mod containerd;
pub mod host;
pub mod images;
pub mod kubectl;
pub mod layout;
pub mod process;
pub mod registry;
pub mod shell;
mod stock;
pub mod sweep;
pub mod upstream;

pub use cluster::{Cluster, Options, Part};
pub use layout::Layout;
