//! Aggregated ClusterRoles: `aggregationRule` gathers the rules of other ClusterRoles by label
//! (`pkg/controller/clusterroleaggregation`).

use serde::Deserialize as _;
use serde_json::Value;

use super::PolicyRule;

/// The rules that `role`'s `aggregationRule` gathers from `all` ClusterRoles, in the order of their names and each once;
/// `None` when the role does not aggregate.
pub fn aggregate<'a>(role: &Value, all: impl IntoIterator<Item = &'a Value>) -> Option<Vec<PolicyRule>> {
    let selectors = role.pointer("/aggregationRule/clusterRoleSelectors")?.as_array()?;
    let own_name = name(role);
    let mut chosen: Vec<&Value> = all
        .into_iter()
        .filter(|other| name(other) != own_name && selectors.iter().any(|selector| matches(selector, other)))
        .collect();
    chosen.sort_by_key(|role| name(role));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in chosen.into_iter().flat_map(PolicyRule::of_role) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    Some(rules)
}

fn name(role: &Value) -> &str {
    role.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

/// A `metav1.LabelSelector` against the role's labels; a selector that cannot be read selects nothing.
fn matches(selector: &Value, role: &Value) -> bool {
    let labels = role.pointer("/metadata/labels");
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    let wanted = selector.get("matchLabels").and_then(Value::as_object);
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    wanted.into_iter().flatten().all(|(key, value)| label(key) == value.as_str())
        && expressions.into_iter().flatten().all(|expression| expression_matches(expression, label))
}

fn expression_matches<'a>(expression: &Value, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let Some(key) = expression.get("key").and_then(Value::as_str) else { return false };
    let values = Vec::<String>::deserialize(&expression["values"]).unwrap_or_default();
    let value = label(key);
    let listed = value.is_some_and(|value| values.iter().any(|v| v == value));
    match expression.get("operator").and_then(Value::as_str) {
        Some("In") => listed,
        Some("NotIn") => !listed,
        Some("Exists") => value.is_some(),
        Some("DoesNotExist") => value.is_none(),
        _ => false,
    }
}
