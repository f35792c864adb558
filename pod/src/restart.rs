//! Whether a container of a pod that goes on is started again.

pub use api::restart::{may_restart_all, policy, restarts_all};

use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::plan::Role;

/// Whether a container of this role starts again after this exit code. Init containers that ended well are done, sidecars always and
/// ephemeral containers never start again.
#[must_use]
pub fn restarts(spec: &PodSpec, container: &Container, role: Role, exit_code: i32) -> bool {
    match role {
        Role::Ephemeral => false,
        Role::Sidecar => true,
        Role::Init if exit_code == 0 => false,
        Role::Init | Role::App => api::restart::should_restart(spec, container, exit_code),
    }
}
