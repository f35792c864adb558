//! Whether a container that ended is started again.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, PodSpec};

use crate::plan::Role;

/// Whether a container of this role starts again after this exit code: its own rules first (KEP-5307), then its own
/// `restartPolicy`, then that of the pod. Init containers that ended well are done, ephemeral ones never start again.
#[must_use]
pub fn restarts(spec: &PodSpec, container: &Container, role: Role, exit_code: i32) -> bool {
    match role {
        Role::Ephemeral => return false,
        Role::Sidecar => return true,
        Role::Init if exit_code == 0 => return false,
        Role::Init | Role::App => {}
    }
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    if rules.iter().any(|rule| applies(rule, exit_code)) {
        return true;
    }
    match policy(spec, container) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

fn applies(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    let Some(codes) = &rule.exit_codes else { return false };
    let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
    rule.action == "Restart" && (listed == (codes.operator == "In"))
}

/// The restart policy that holds for a container.
#[must_use]
pub fn policy<'a>(spec: &'a PodSpec, container: &'a Container) -> &'a str {
    container.restart_policy.as_deref().or(spec.restart_policy.as_deref()).unwrap_or("Always")
}
