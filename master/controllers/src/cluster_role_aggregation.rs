//! ClusterRole aggregation: the rules of a role with an aggregationRule are those of all roles that it selects.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;
use kube::api::{Patch, PatchParams};
use machinery::{Outcome, Retry, WorkQueue};
use serde_json::json;

use crate::context::Context;
use crate::owner::selects;

const NAME: &str = "clusterrole-aggregation-controller";
const WORKERS: usize = 1;

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let (to, roles) = (queue.clone(), caches.cluster_roles.clone());
    caches.cluster_roles.on_change(move |_| {
        for role in roles.all().iter().filter(|role| role.aggregation_rule.is_some()) {
            to.add(role.metadata.name.as_deref().unwrap_or_default());
        }
    });
    let client = context.client(NAME);
    context.spawn_workers(NAME, queue, WORKERS, (caches, client), |it, name| async move {
        let (caches, client) = &*it;
        let Some(role) = caches.cluster_roles.get(&name) else { return Ok(Outcome::Done) };
        let all = caches.cluster_roles.all();
        let Some(rules) = aggregated(&role, all.iter().map(|role| &**role)) else { return Ok(Outcome::Done) };
        if role.rules.as_deref().unwrap_or_default() == rules {
            return Ok(Outcome::Done);
        }
        let patch = json!({"metadata": {"resourceVersion": role.metadata.resource_version}, "rules": rules});
        let api = Api::<ClusterRole>::all(client.clone());
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if !machinery::is_not_found(&error) => Err(Retry::from(error)),
            _ => Ok(Outcome::Done),
        }
    });
}

/// The rules of all selected roles in the order of their names, each rule once. None without an aggregationRule.
fn aggregated<'a>(role: &ClusterRole, all: impl Iterator<Item = &'a ClusterRole>) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let others = all.filter(|other| other.metadata.name != role.metadata.name);
    let mut selected: Vec<&ClusterRole> = others
        .filter(|other| selectors.iter().any(|selector| selects(selector, other.metadata.labels.as_ref())))
        .collect();
    selected.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in selected.into_iter().flat_map(|role| role.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_of_selected_roles_are_joined_once() {
        let role = |name: &str, labelled: bool, resource: &str| -> ClusterRole {
            serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {"to-view": labelled.to_string()}},
                "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}],
            }))
            .unwrap()
        };
        let view: ClusterRole = serde_json::from_value(json!({
            "metadata": {"name": "view", "labels": {"to-view": "true"}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to-view": "true"}}]},
        }))
        .unwrap();
        let all =
            [role("b", true, "pods"), role("a", true, "nodes"), role("c", false, "secrets"), role("d", true, "pods")];
        let rules = aggregated(&view, all.iter().chain([&view])).unwrap();
        let resources: Vec<_> = rules.iter().flat_map(|rule| rule.resources.clone().unwrap()).collect();
        assert_eq!(resources, ["nodes", "pods"]);
        assert_eq!(aggregated(&all[0], all.iter()), None);
    }
}
