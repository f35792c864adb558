//! Pod specs: shared by pods and by everything that makes pods from a template.

pub(crate) mod app_armor;
mod containers;
mod environment;
mod gated;
pub(crate) mod handlers;
pub(crate) mod label_keys;
pub(crate) mod node_labels;
pub(crate) mod qos;
mod resize;
pub(crate) mod resources;
pub(crate) mod row;
pub(crate) mod scheduling;
mod security;
pub(crate) mod update;
pub(crate) mod validate;
pub(crate) mod volumes;
pub(crate) mod warnings;
