//! The scheduler: finds a node for each pod that has none.
//!
//! One task ([`run`]) owns a [`cache::Cache`] of what the nodes have left and a [`queue::Queue`] of pods that wait; watches
//! and binding results reach it through one bounded channel. Deciding ([`decide::decide`]) is pure and reads only the cache.
//! A decision is assumed in the cache at once and written (`pods/binding`) in the background, so that the next pod is decided
//! meanwhile. For a pod that fits nowhere [`preemption::find`] says which less important ones have to leave where; until they are
//! gone, the room is kept for it ([`nominated::Nominated`]). The order of filters, their messages and the weights of scores are those of kube-scheduler's default profile.

pub mod budgets;
pub mod cache;
pub mod decide;
mod feed;
pub mod node;
pub mod nominated;
pub mod plugins;
pub mod pod;
pub mod preemption;
pub mod queue;
pub mod resources;
mod run;
pub mod view;
pub mod volumes;
mod write;

pub use run::{Config, run};

#[cfg(test)]
mod tests;
