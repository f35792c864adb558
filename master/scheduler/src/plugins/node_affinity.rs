//! spec.nodeSelector and node affinity.

use std::collections::HashSet;

use crate::node::NodeFacts;
use crate::pod::PodInfo;

/// The nodes that required node affinity names; `None` where it names none, and any node may do.
#[must_use]
pub fn named(pod: &PodInfo) -> Option<HashSet<&str>> {
    let required = pod.wishes.as_ref()?.required_nodes.as_ref()?;
    let mut names = HashSet::new();
    for term in &required.node_selector_terms {
        let fields = term.match_fields.iter().flatten();
        let by_name = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
        let each = by_name.map(|field| field.values.iter().flatten().map(String::as_str).collect::<HashSet<&str>>());
        names.extend(each.reduce(|all, some| &all & &some)?);
    }
    Some(names)
}

/// Whether nodeSelector and required node affinity allow the node.
#[must_use]
pub fn matches(pod: &PodInfo, facts: &NodeFacts) -> bool {
    let Some(wishes) = &pod.wishes else { return true };
    let selected = wishes.node_selector.iter().all(|(key, value)| facts.labels.get(key) == Some(value));
    selected
        && wishes
            .required_nodes
            .as_ref()
            .is_none_or(|required| api::affinity::node_selector_matches(required, &facts.labels, &facts.name))
}

/// The sum of the weights of the preferred terms that the node matches.
#[must_use]
pub fn preference(pod: &PodInfo, facts: &NodeFacts) -> i64 {
    let Some(wishes) = &pod.wishes else { return 0 };
    let matching = wishes
        .preferred_nodes
        .iter()
        .filter(|term| api::affinity::node_selector_term_matches(&term.preference, &facts.labels, &facts.name));
    matching.map(|term| i64::from(term.weight)).sum()
}
