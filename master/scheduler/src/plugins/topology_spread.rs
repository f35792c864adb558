//! spec.topologySpreadConstraints with whenUnsatisfiable: DoNotSchedule (filter) and ScheduleAnyway (score).

use std::collections::HashMap;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use crate::cache::Cache;
use crate::node::{NodeFacts, NodeInfo};
use crate::plugins::{Reason, node_affinity, taint_toleration};
use crate::pod::{PodInfo, matches};
use crate::view::View;

struct Constraint<'a> {
    of: &'a TopologySpreadConstraint,
    /// Matching pods in each domain of eligible nodes.
    counts: HashMap<String, i64>,
    least: i64,
    /// 1 when the pod counts itself.
    own: i64,
}

/// The state of the pod's DoNotSchedule constraints.
pub struct Prepared<'a> {
    constraints: Vec<Constraint<'a>>,
}

impl<'a> Prepared<'a> {
    /// Counts matching pods in each domain.
    #[must_use]
    pub fn new(pod: &'a PodInfo, view: View<'_>) -> Self {
        let all = pod.wishes.as_ref().map_or(&[][..], |wishes| wishes.spread.as_slice());
        let hard: Vec<&TopologySpreadConstraint> =
            all.iter().filter(|one| one.when_unsatisfiable == "DoNotSchedule").collect();
        let counted = hard.iter().map(|one| {
            let counts = count_domains(pod, one, &hard, view);
            let domains = i32::try_from(counts.len()).unwrap_or(i32::MAX);
            let enough = one.min_domains.is_none_or(|wanted| domains >= wanted);
            let least = if enough { counts.values().copied().min().unwrap_or(0) } else { 0 };
            Constraint { of: one, counts, least, own: i64::from(selects(one, pod)) }
        });
        Self { constraints: counted.collect() }
    }

    /// Why the node is refused, if it is.
    #[must_use]
    pub fn refuses(&self, facts: &NodeFacts) -> Option<Reason> {
        for constraint in &self.constraints {
            let Some(domain) = facts.labels.get(&constraint.of.topology_key) else {
                return Some(Reason::SpreadLabel);
            };
            let here = constraint.counts.get(domain).copied().unwrap_or(0);
            if here + constraint.own - constraint.least > i64::from(constraint.of.max_skew) {
                return Some(Reason::Spread);
            }
        }
        None
    }
}

/// Matching pods in the node's domain, over all ScheduleAnyway constraints: fewer are better. None without such constraints.
#[must_use]
pub fn soft_counts(pod: &PodInfo, cache: &Cache) -> Option<SoftCounts> {
    let wishes = pod.wishes.as_ref()?;
    let soft: Vec<&TopologySpreadConstraint> =
        wishes.spread.iter().filter(|one| one.when_unsatisfiable == "ScheduleAnyway").collect();
    if soft.is_empty() {
        return None;
    }
    let counts = soft
        .iter()
        .map(|one| (one.topology_key.clone(), i64::from(one.max_skew), count_domains(pod, one, &soft, cache.into())));
    Some(SoftCounts { counts: counts.collect() })
}

/// Matching pods of each ScheduleAnyway constraint in each domain.
pub struct SoftCounts {
    counts: Vec<(String, i64, HashMap<String, i64>)>,
}

impl SoftCounts {
    /// The cost of the node, in thousandths: as upstream, domains of a key with many values count for more. None where it
    /// lacks one of the labels.
    #[must_use]
    pub fn cost(&self, facts: &NodeFacts) -> Option<i64> {
        let each = self.counts.iter().map(|(key, max_skew, counts)| {
            let here = counts.get(facts.labels.get(key)?).copied().unwrap_or(0);
            Some(here * weight(counts.len()) + (max_skew - 1) * 1000)
        });
        each.sum()
    }
}

/// The logarithm of the number of domains, in thousandths.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // small numbers
fn weight(domains: usize) -> i64 {
    ((domains as f64 + 2.0).ln() * 1000.0) as i64
}

fn count_domains(
    pod: &PodInfo,
    one: &TopologySpreadConstraint,
    all: &[&TopologySpreadConstraint],
    view: View<'_>,
) -> HashMap<String, i64> {
    let mut counts = HashMap::new();
    for (facts, node) in view.nodes() {
        if !all.iter().all(|other| facts.labels.contains_key(&other.topology_key)) || !eligible(pod, one, facts) {
            continue;
        }
        if let Some(domain) = facts.labels.get(&one.topology_key) {
            *counts.entry(domain.clone()).or_default() += count_on(pod, one, node);
        }
    }
    counts
}

/// nodeAffinityPolicy (Honor unless said otherwise) and nodeTaintsPolicy (Ignore unless said otherwise).
fn eligible(pod: &PodInfo, one: &TopologySpreadConstraint, facts: &NodeFacts) -> bool {
    let by_affinity = one.node_affinity_policy.as_deref() == Some("Ignore") || node_affinity::matches(pod, facts);
    let by_taints =
        one.node_taints_policy.as_deref() != Some("Honor") || taint_toleration::untolerated(pod, facts).is_none();
    by_affinity && by_taints
}

fn count_on(pod: &PodInfo, one: &TopologySpreadConstraint, node: &NodeInfo) -> i64 {
    let alike = node.pods.values().filter(|other| {
        other.namespace == pod.namespace && !other.deleting && other.uid != pod.uid && selects(one, other)
    });
    i64::try_from(alike.count()).unwrap_or(i64::MAX)
}

fn selects(one: &TopologySpreadConstraint, pod: &PodInfo) -> bool {
    one.label_selector.as_ref().is_some_and(|selector| matches(selector, &pod.labels))
}
