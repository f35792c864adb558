//! Pod affinity and anti-affinity, of the pod and of those that run already.

use std::collections::{HashMap, HashSet};

use crate::cache::Cache;
use crate::node::NodeFacts;
use crate::plugins::Reason;
use crate::pod::{AffinityTerm, PodInfo};
use crate::view::View;

/// The weight that a required affinity term of a running pod adds to the score of its domain.
const HARD_POD_AFFINITY_WEIGHT: i64 = 1;

/// Which domains the rules about other pods allow.
pub struct Prepared<'a> {
    pod: &'a PodInfo,
    /// Domains that a running pod's required anti-affinity forbids: (label key, value).
    guarded: HashSet<(String, String)>,
    /// For each required affinity term, the domains with a pod that all terms select.
    near: Vec<HashSet<String>>,
    /// For each required anti-affinity term, the domains with a pod that it selects.
    apart: Vec<HashSet<String>>,
    /// No pod fits the affinity yet, but the pod itself does: it may be the first.
    may_be_first: bool,
}

impl<'a> Prepared<'a> {
    /// Looks at all pods if the pod has rules about others, else only at those that have rules themselves.
    #[must_use]
    pub fn new(pod: &'a PodInfo, view: View<'_>) -> Self {
        let (affinity, anti) = pod
            .wishes
            .as_ref()
            .map_or((&[][..], &[][..]), |wishes| (wishes.affinity.as_slice(), wishes.anti_affinity.as_slice()));
        let mut prepared = Self {
            pod,
            guarded: guarded_domains(pod, view),
            near: vec![HashSet::new(); affinity.len()],
            apart: vec![HashSet::new(); anti.len()],
            may_be_first: false,
        };
        if affinity.is_empty() && anti.is_empty() {
            return prepared;
        }
        let all_select = |other: &PodInfo| {
            !affinity.is_empty() && affinity.iter().all(|term| term.selects(other, view.namespaces()))
        };
        for (facts, node) in view.nodes() {
            for other in node.pods.values().filter(|other| other.uid != pod.uid) {
                if all_select(other) {
                    note(&mut prepared.near, affinity, facts, |_| true);
                }
                note(&mut prepared.apart, anti, facts, |term| term.selects(other, view.namespaces()));
            }
        }
        prepared.may_be_first = prepared.near.iter().all(HashSet::is_empty) && all_select(pod);
        prepared
    }

    /// Why the node is refused, if it is.
    #[must_use]
    pub fn refuses(&self, facts: &NodeFacts) -> Option<Reason> {
        if let Some(wishes) = &self.pod.wishes {
            let lacks = |(term, domains): (&AffinityTerm, &HashSet<String>)| {
                facts
                    .labels
                    .get(&term.topology_key)
                    .is_none_or(|domain| !domains.contains(domain) && !self.may_be_first)
            };
            if wishes.affinity.iter().zip(&self.near).any(lacks) {
                return Some(Reason::PodAffinity);
            }
            let clashes = |(term, domains): (&AffinityTerm, &HashSet<String>)| {
                facts.labels.get(&term.topology_key).is_some_and(|domain| domains.contains(domain))
            };
            if wishes.anti_affinity.iter().zip(&self.apart).any(clashes) {
                return Some(Reason::PodAntiAffinity);
            }
        }
        let is_guarded = |(key, value): &(String, String)| facts.labels.get(key) == Some(value);
        self.guarded.iter().any(is_guarded).then_some(Reason::ExistingAntiAffinity)
    }
}

fn note(
    domains: &mut [HashSet<String>],
    terms: &[AffinityTerm],
    facts: &NodeFacts,
    selects: impl Fn(&AffinityTerm) -> bool,
) {
    for (term, found) in terms.iter().zip(domains) {
        if let Some(domain) = facts.labels.get(&term.topology_key)
            && !found.contains(domain)
            && selects(term)
        {
            found.insert(domain.clone());
        }
    }
}

fn guarded_domains(pod: &PodInfo, view: View<'_>) -> HashSet<(String, String)> {
    let mut guarded = HashSet::new();
    for (facts, node) in view.guarded() {
        for other in node.pods.values() {
            for term in other.anti_affinity().iter().filter(|term| term.selects(pod, view.namespaces())) {
                if let Some(domain) = facts.labels.get(&term.topology_key) {
                    guarded.insert((term.topology_key.clone(), domain.clone()));
                }
            }
        }
    }
    guarded
}

/// How much each domain (label key, value) is liked: preferred terms of the pod about others and of others about the pod.
#[must_use]
pub fn preferences(pod: &PodInfo, cache: &Cache) -> HashMap<(String, String), i64> {
    let mut liked = HashMap::new();
    let own = pod.wishes.as_ref().map_or(&[][..], |wishes| wishes.preferred_pods.as_slice());
    for (facts, node) in cache.nodes() {
        if own.is_empty() && node.with_pod_affinity == 0 {
            continue;
        }
        let mut like = |term: &AffinityTerm, weight: i64| {
            if let Some(domain) = facts.labels.get(&term.topology_key) {
                *liked.entry((term.topology_key.clone(), domain.clone())).or_default() += weight;
            }
        };
        for other in node.pods.values() {
            for term in own.iter().filter(|term| term.selects(other, cache.namespaces())) {
                like(term, term.weight);
            }
            let Some(theirs) = &other.wishes else { continue };
            for term in theirs.preferred_pods.iter().filter(|term| term.selects(pod, cache.namespaces())) {
                like(term, term.weight);
            }
            for term in theirs.affinity.iter().filter(|term| term.selects(pod, cache.namespaces())) {
                like(term, HARD_POD_AFFINITY_WEIGHT);
            }
        }
    }
    liked
}
