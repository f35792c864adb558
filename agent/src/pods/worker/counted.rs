//! What was started is counted.

use k8s_openapi::api::core::v1::Pod;
use pod::{Role, Step};

use crate::metrics::families::{
    STARTED_CONTAINERS, STARTED_CONTAINERS_ERRORS, STARTED_PODS, STARTED_PODS_ERRORS, STARTED_USERNS,
    STARTED_USERNS_ERRORS,
};
use crate::pods::stages::StageError;
use crate::pods::stages::sandbox::has_own_users;

/// A step came to its end.
pub(super) fn started(pod: Option<&Pod>, step: &Step, error: Option<&StageError>) {
    match step {
        Step::RunSandbox { .. } => sandbox(pod, error),
        Step::StartContainer(start) => {
            let kind = kind(start.role);
            STARTED_CONTAINERS.count([kind.into()]);
            if let Some(error) = error {
                STARTED_CONTAINERS_ERRORS.count([kind.into(), error.reason.clone().into()]);
            }
        }
        _ => {}
    }
}

fn sandbox(pod: Option<&Pod>, error: Option<&StageError>) {
    STARTED_PODS.count([]);
    let has_users = pod.is_some_and(has_own_users);
    if has_users {
        STARTED_USERNS.count([]);
    }
    if error.is_some() {
        STARTED_PODS_ERRORS.count([]);
        if has_users {
            STARTED_USERNS_ERRORS.count([]);
        }
    }
}

fn kind(role: Role) -> &'static str {
    match role {
        Role::Init | Role::Sidecar => "init_container",
        Role::App => "container",
        Role::Ephemeral => "ephemeral_container",
    }
}
