//! The brain of the node: what to do next for one pod, and what its status is. Both are pure functions of [`World`].
//!
//! [`plan()`] answers with one batch of steps; the agent executes them, reads the world again, and asks again. Nothing
//! is remembered between two calls but what [`World`] holds, and all of that is found again after a restart in the
//! container runtime, the volume folders, the cgroup tree and the API object.

pub mod allocation;
pub mod backoff;
pub mod env;
pub mod events;
pub mod explain;
pub mod fields;
pub mod hash;
pub mod plan;
pub mod resolve;
pub mod restart;
pub mod status;
mod view;
pub mod world;

pub use allocation::{Actuated, Allocation, Deferral};
pub use explain::{Explanation, explain};
pub use plan::{
    Event, EventKind, KillContainer, Plan, PreStop, ProbeTarget, Resize, Resized, Role, StartContainer, Step, plan,
};
pub use status::{overwritten, status};
pub use world::{
    Admission, Begun, Container, ContainerState, Desired, Eviction, Failure, HookState, Kill, NodeFacts, Observed,
    Prepared, ProbeResults, Sandbox, Source, Stage, UserFacts, Verdict, World,
};
