//! One RBAC rule: what it matches (`rbac.authorization.k8s.io/v1` PolicyRule; `pkg/apis/rbac/v1/evaluation_helpers.go`).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Attributes;

const ALL: &str = "*";

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyRule {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    pub verbs: Vec<String>,
}

impl PolicyRule {
    /// The rules of a Role or ClusterRole. A rule that does not parse grants nothing.
    pub fn of_role(role: &Value) -> Vec<PolicyRule> {
        let rules = role.get("rules").and_then(Value::as_array);
        rules.into_iter().flatten().filter_map(|rule| PolicyRule::deserialize(rule).ok()).collect()
    }

    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if !has(&self.verbs, attributes.verb) {
            return false;
        }
        match attributes.path {
            Some(path) => self.non_resource_urls.iter().any(|url| url_matches(url, path)),
            None => {
                has(&self.api_groups, attributes.group)
                    && self.resources.iter().any(|r| resource_matches(r, attributes.resource, attributes.subresource))
                    && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == attributes.name))
            }
        }
    }

    /// Whether this rule grants everything that `wanted`, a rule of one verb and one resource or URL, grants.
    pub(super) fn covers(&self, wanted: &PolicyRule) -> bool {
        covers_all(&self.verbs, &wanted.verbs)
            && covers_all(&self.api_groups, &wanted.api_groups)
            && wanted.resources.iter().all(|resource| {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                self.resources.iter().any(|rule| resource_matches(rule, resource, subresource))
            })
            && wanted
                .non_resource_urls
                .iter()
                .all(|url| self.non_resource_urls.iter().any(|rule| url_matches(rule, url)))
            && self.covers_names(wanted)
    }

    fn covers_names(&self, wanted: &PolicyRule) -> bool {
        if self.resource_names.is_empty() {
            return true;
        }
        !wanted.resource_names.is_empty() && wanted.resource_names.iter().all(|name| self.resource_names.contains(name))
    }
}

fn has(rule: &[String], wanted: &str) -> bool {
    rule.iter().any(|value| value == ALL || value == wanted)
}

fn covers_all(rule: &[String], wanted: &[String]) -> bool {
    rule.iter().any(|value| value == ALL) || wanted.iter().all(|value| rule.contains(value))
}

/// `pods`, `pods/log`, `*` (all, subresources too) or `*/scale` (that subresource of all).
fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((rule_resource, rule_subresource)) => {
            !subresource.is_empty()
                && rule_subresource == subresource
                && (rule_resource == ALL || rule_resource == resource)
        }
    }
}

/// `/healthz`, or `/apis/*` for everything that begins so.
fn url_matches(rule: &str, path: &str) -> bool {
    match rule.strip_suffix(ALL) {
        Some(prefix) => path.starts_with(prefix.trim_end_matches('*')),
        None => rule == path,
    }
}
