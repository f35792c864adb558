//! What Kubernetes objects mean: small pure helpers over the types of `k8s_openapi`. No I/O, no clock.

pub mod affinity;
pub mod conditions;
pub mod cron;
pub mod ids;
pub mod image;
pub mod names;
pub mod node_labels;
pub mod pod;
pub mod qos;
pub mod quantity;
pub mod quota;
pub mod resources;
pub mod restart;
pub mod selector;
pub mod taints;
pub mod volumes;

pub use ids::{ContainerId, PodUid, SandboxId};
