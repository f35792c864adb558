//! Whether a container that ended starts again: its own rules first (KEP-5307), then its own `restartPolicy`, then that of the pod.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, PodSpec};
use serde::Deserialize;

const RESTART: &str = "Restart";
const RESTART_ALL: &str = "RestartAllContainers";

/// Whether a container starts again after this exit code (`ContainerShouldRestart`).
#[must_use]
pub fn should_restart(spec: &PodSpec, container: &Container, exit_code: i32) -> bool {
    if matches!(action(container, exit_code), Some(RESTART | RESTART_ALL)) {
        return true;
    }
    match policy(spec, container) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// The restart policy that holds for a container.
#[must_use]
pub fn policy<'a>(spec: &'a PodSpec, container: &'a Container) -> &'a str {
    container.restart_policy.as_deref().or(spec.restart_policy.as_deref()).unwrap_or("Always")
}

/// Whether all containers of the pod start again after this exit code of one (KEP-5532).
#[must_use]
pub fn restarts_all(container: &Container, exit_code: i32) -> bool {
    action(container, exit_code) == Some(RESTART_ALL)
}

/// Whether that can happen to a pod (`AllContainersCouldRestart`).
#[must_use]
pub fn may_restart_all(spec: &PodSpec) -> bool {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut rules = containers.flat_map(|container| container.restart_policy_rules.iter().flatten());
    rules.any(|rule| rule.action == RESTART_ALL)
}

/// Whether a container that ended with this exit code may be told to run again; `spec` is its pod's as the API has it.
#[must_use]
pub fn may_run_again(spec: &serde_json::Value, name: &str, exit_code: i64) -> bool {
    let Ok(spec) = PodSpec::deserialize(spec) else { return false };
    let exit_code = i32::try_from(exit_code).unwrap_or(i32::MAX);
    let container = spec.containers.iter().find(|container| container.name == name);
    may_restart_all(&spec) || container.is_some_and(|container| should_restart(&spec, container, exit_code))
}

/// What the first of a container's own rules that is about this exit code wants.
fn action(container: &Container, exit_code: i32) -> Option<&str> {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    rules.iter().find(|rule| is_about(rule, exit_code)).map(|rule| rule.action.as_str())
}

fn is_about(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    let Some(codes) = &rule.exit_codes else { return false };
    let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
    listed == (codes.operator == "In")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(policy: &str, container: serde_json::Value) -> PodSpec {
        let mut container = container;
        container["name"] = "c".into();
        serde_json::from_value(serde_json::json!({"restartPolicy": policy, "containers": [container]})).unwrap()
    }

    #[test]
    fn the_first_rule_that_is_about_the_code_counts_then_the_nearest_policy() {
        let rule = |action: &str, operator: &str, codes: &[i32]| serde_json::json!({"action": action, "exitCodes": {"operator": operator, "values": codes}});
        let rules = [rule("RestartAllContainers", "In", &[42, 7]), rule("Restart", "NotIn", &[0, 1])];
        let with_rules = spec("Always", serde_json::json!({"restartPolicy": "Never", "restartPolicyRules": rules}));
        let again = |spec: &PodSpec| [0, 1, 7, 42].map(|code| should_restart(spec, &spec.containers[0], code));
        assert_eq!(again(&with_rules), [false, false, true, true]);
        assert_eq!([0, 1, 7, 9].map(|code| restarts_all(&with_rules.containers[0], code)), [false, false, true, false]);
        assert!(may_restart_all(&with_rules));
        let plain = spec("OnFailure", serde_json::json!({}));
        assert_eq!(again(&plain), [false, true, true, true]);
        assert!(!may_restart_all(&plain));
        assert_eq!(again(&spec("Never", serde_json::json!({"restartPolicy": "Always"}))), [true; 4]);
        let told = |spec: &PodSpec| may_run_again(&serde_json::to_value(spec).unwrap(), "c", 0);
        assert_eq!([&with_rules, &plain].map(told), [true, false], "one that all may start anew for");
    }
}
