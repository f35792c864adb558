//! The node agent: kubelet, service proxy and pod network of one machine.
//!
//! `join` makes a machine a node, `run` is what a node runs. This crate is the only one that composes the node's rooms;
//! what a room does is decided in the room.

pub mod bundle;
pub mod client;
pub mod commands;
pub mod config;
pub mod doctor;
pub mod events;
pub mod eviction;
pub mod exposition;
pub mod identity;
pub mod images;
pub mod inspect;
pub mod join;
pub mod kernel_flags;
pub mod leave;
pub mod metrics;
pub mod network;
pub mod node;
mod own_files;
mod own_limits;
pub mod pause_image;
pub mod pods;
pub mod preflight;
pub mod rate;
pub mod run;
pub mod runtime_info;
mod runtime_needs;
pub mod serve;
pub mod shutdown;
pub mod state_format;
pub mod stats;
pub mod tasks;
pub mod upgrade;
pub mod watched;
