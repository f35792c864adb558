//! Node selectors: `nodeSelector` and the terms of node affinity.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

use crate::selector::{Operator, Requirement, map_matches};

/// Whether one of the terms matches. A selector without terms matches nothing (API doc of `NodeSelector`).
#[must_use]
pub fn node_selector_matches(selector: &NodeSelector, labels: &BTreeMap<String, String>, name: &str) -> bool {
    selector.node_selector_terms.iter().any(|term| node_selector_term_matches(term, labels, name))
}

/// Whether all requirements of a term hold. An empty term matches nothing. The only field is `metadata.name`.
#[must_use]
pub fn node_selector_term_matches(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |key: &str| labels.get(key).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(name);
    expressions.iter().all(|requirement| holds(requirement, label(&requirement.key)))
        && fields.iter().all(|requirement| holds(requirement, field(&requirement.key)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let operator = match requirement.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Gt,
        "Lt" => Operator::Lt,
        _ => return false,
    };
    let values = requirement.values.clone().unwrap_or_default();
    Requirement { key: requirement.key.clone(), operator, values }.matches_value(value)
}

/// Whether `nodeSelector` and the required node affinity of a pod allow a node.
#[must_use]
pub fn pod_allows_node(spec: &PodSpec, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let selected = spec.node_selector.as_ref().is_none_or(|selector| map_matches(selector, labels));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|required| node_selector_matches(required, labels, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms() {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("cores".to_owned(), "8".to_owned())]);
        let matches = |json| node_selector_matches(&serde_json::from_value(json).unwrap(), &labels, "n1");
        let zone = serde_json::json!({"key": "zone", "operator": "In", "values": ["a", "b"]});
        let cores = serde_json::json!({"key": "cores", "operator": "Gt", "values": ["8"]});
        let name = serde_json::json!({"key": "metadata.name", "operator": "In", "values": ["n1"]});
        assert!(matches(
            serde_json::json!({"nodeSelectorTerms": [{"matchExpressions": [zone], "matchFields": [name]}]})
        ));
        assert!(!matches(serde_json::json!({"nodeSelectorTerms": [{"matchExpressions": [zone, cores]}]})));
        assert!(matches(
            serde_json::json!({"nodeSelectorTerms": [{"matchExpressions": [cores]}, {"matchFields": [name]}]})
        ));
        assert!(!matches(serde_json::json!({"nodeSelectorTerms": [{}]})));
        assert!(!matches(serde_json::json!({"nodeSelectorTerms": []})));
    }
}
