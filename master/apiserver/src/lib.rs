//! The Kubernetes API over HTTP and in process: discovery, objects of every kind that `schema` describes, watches,
//! subresources and reviews. No handler knows a kind by name except those of subresources.
//!
//! The road of a request: authenticate, authorize, decode, default, mutating admission, prepare, validate, validating
//! admission, commit, answer. Reads and watches come from the store's cache.

// `serde_json::Value` answers Null for a key that is missing; clippy cannot tell it from a slice.
#![allow(clippy::indexing_slicing)]

mod aggregation;
mod allocate;
mod body;
mod bootstrap;
mod conversion;
mod discovery;
mod endpoints;
mod events;
mod flow_control;
mod health;
mod hooks;
mod https;
mod in_process;
mod ip_addresses;
mod kinds;
mod objects;
mod openapi;
mod problem;
mod quota;
mod relay;
mod request;
mod road;
mod server;
mod service_cidrs;
mod snapshot;
mod subresources;
mod trust;
mod warnings;
mod webhooks;

pub use body::{Body, BoxError};
pub use bootstrap::BootstrapError;
pub use discovery::GIT_VERSION;
pub use in_process::InProcess;
pub use server::{ApiServer, Config, Network, Security, StartError};
pub use snapshot::PATH as SNAPSHOT_PATH;
