//! `spec.podFailurePolicy`: what the failure of a pod means.

use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::Pod;

use crate::pods;

/// What the first rule that matches asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    FailJob,
    FailIndex,
    Ignore,
    Count,
}

/// The action and how upstream words the match; none where no rule matches.
pub(super) fn action(spec: &JobSpec, pod: &Pod) -> Option<(Action, String)> {
    let policy = spec.pod_failure_policy.as_ref()?;
    if pods::phase(pod) != "Failed" {
        return None;
    }
    policy.rules.iter().enumerate().find_map(|(index, rule)| {
        let what = matched(rule, pod)?;
        let action = match rule.action.as_str() {
            "FailJob" => Action::FailJob,
            "FailIndex" => Action::FailIndex,
            "Ignore" => Action::Ignore,
            _ => Action::Count,
        };
        let meta = &pod.metadata;
        let name = format!(
            "{}/{}",
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default()
        );
        let message = match what {
            Match::ExitCode(container, code) => {
                format!("Container {container} for pod {name} failed with exit code {code} matching {} rule at index {index}", rule.action)
            }
            Match::Condition(kind) => {
                format!("Pod {name} has condition {kind} matching {} rule at index {index}", rule.action)
            }
        };
        Some((action, message))
    })
}

enum Match {
    ExitCode(String, i32),
    Condition(String),
}

fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<Match> {
    if let Some(codes) = &rule.on_exit_codes {
        return exit_code(codes, pod);
    }
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let patterns = rule.on_pod_conditions.iter().flatten();
    patterns.into_iter().find_map(|pattern| {
        let wanted = pattern.status.as_deref().filter(|status| !status.is_empty()).unwrap_or("True");
        let mut has = conditions.into_iter().flatten();
        has.any(|condition| condition.type_ == pattern.type_ && condition.status == wanted)
            .then(|| Match::Condition(pattern.type_.clone()))
    })
}

fn exit_code(codes: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<Match> {
    let status = pod.status.as_ref()?;
    let statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    statuses.filter(|one| codes.container_name.as_ref().is_none_or(|name| *name == one.name)).find_map(|one| {
        let code = one.state.as_ref()?.terminated.as_ref()?.exit_code;
        let listed = codes.values.contains(&code);
        let matches = code != 0 && if codes.operator == "In" { listed } else { !listed };
        matches.then(|| Match::ExitCode(one.name.clone(), code))
    })
}
