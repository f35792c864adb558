//! The Container Runtime Interface: a client for CRI v1 over a unix socket, runtime events with a fallback for runtimes
//! that have none, import of image archives into containerd, and (in [`fake`]) a runtime in memory for tests.
//!
//! Knows nothing of Kubernetes' objects: labels, annotations and names are the caller's.

mod client;
mod error;
pub mod events;
#[cfg(feature = "fake")]
pub mod fake;
pub mod import;

/// The CRI v1 messages and services, generated from `proto/runtime.proto`.
#[allow(clippy::all, clippy::pedantic, clippy::unwrap_used, missing_docs)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

#[allow(clippy::all, clippy::pedantic, missing_docs)]
mod containerd {
    pub mod content {
        tonic::include_proto!("containerd.services.content.v1");
    }
    pub mod images {
        tonic::include_proto!("containerd.services.images.v1");
    }
    pub mod leases {
        tonic::include_proto!("containerd.services.leases.v1");
    }
    pub mod events {
        tonic::include_proto!("containerd.services.events.v1");
    }
}

pub use client::{Client, Observer, endpoint};
pub use error::{CallError, EndpointError};
