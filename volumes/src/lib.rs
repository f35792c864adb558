//! The files that a pod sees.
//!
//! * [`plan`](mod@plan): which volumes a pod needs and where its containers mount them. Pure.
//! * [`kinds`]: one module a volume type: what is in it.
//! * [`setup`]: makes the volumes of a plan; repeating it refreshes them.
//! * [`atomic`]: replaces a folder's files all at once (`..data`).
//! * [`ownership`](mod@ownership): `fsGroup`.
//! * [`subpath`]: `subPath` mounts that cannot leave their volume.
//! * [`teardown`]: unmounts and removes all of a pod's, and finds pods that were left behind.
//!
//! ConfigMaps, Secrets, tokens and pod fields come in through [`Objects`] and [`Downward`].

pub mod atomic;
mod error;
mod fs;
pub mod kinds;
mod layout;
mod mounts;
mod objects;
pub mod ownership;
pub mod plan;
mod removal;
pub mod setup;
pub mod subpath;
pub mod teardown;

pub use error::{Error, SetUpError};
pub use fs::on_other_device;
pub use layout::Layout;
pub use objects::{BoundToken, Downward, ObjectError, Objects, TokenAsk, renew_at};
pub use plan::{Plan, Reference, plan};
pub use removal::remove_tree;
pub use setup::{Prepared, SetUp};
