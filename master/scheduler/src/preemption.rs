//! Which pods make room for one that fits nowhere (kube-scheduler's DefaultPreemption). Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::cache::Cache;
use crate::decide::{fits, histogram};
use crate::node::{NodeFacts, NodeInfo};
use crate::plugins::{Prepared, Reason};
use crate::pod::PodInfo;
use crate::view::View;

/// Of this many nodes at least victims are looked for (`minCandidateNodesAbsolute`), and of this share of all, in percent.
const LEAST_CANDIDATES: usize = 100;
const LEAST_SHARE: usize = 10;

/// Room that can be made.
#[derive(Debug, Clone)]
pub struct Preemption {
    /// On this node,
    pub node: String,
    /// when these pods leave it, the most important one first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of the victims a PodDisruptionBudget protects.
    violations: usize,
}

/// No room can be made, or none is made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Futile {
    /// Why, in kube-scheduler's words.
    pub why: String,
    /// The pod keeps the node that it was nominated to.
    pub keeps_nomination: bool,
}

/// Finds the node where making room for the pod costs least, searching from position `start` on.
///
/// # Errors
/// [`Futile`] when the pod may not preempt others or when no node would have room without them.
pub fn find(cache: &Cache, pod: &PodInfo, start: usize) -> Result<Preemption, Futile> {
    let refused = |why: &str| Err(Futile { why: why.to_owned(), keeps_nomination: true });
    if !pod.preempts {
        return refused("not eligible due to preemptionPolicy=Never.");
    }
    let prepared = Prepared::new(pod, cache.into());
    let is_hopeless = |facts: &NodeFacts, node: &NodeInfo| {
        prepared.filter(facts, node).is_err_and(|reasons| reasons.iter().any(Reason::is_unresolvable))
    };
    if let Some((facts, node)) = cache.nominated().node_of(&pod.uid).and_then(|name| cache.node(name))
        && node.pods.values().any(|other| other.priority < pod.priority && other.preempted)
        && !is_hopeless(facts, node)
    {
        return refused("not eligible due to a terminating pod on the nominated node.");
    }
    let enough = (cache.node_count() * LEAST_SHARE / 100).max(LEAST_CANDIDATES);
    let mut candidates: Vec<Preemption> = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (facts, node) in cache.nodes_from(start) {
        if is_hopeless(facts, node) {
            *counts.entry("Preemption is not helpful for scheduling".to_owned()).or_default() += 1;
            continue;
        }
        match victims_on(cache, pod, facts, node) {
            Ok(found) => candidates.push(found),
            Err(reasons) => reasons.into_iter().for_each(|reason| *counts.entry(reason).or_default() += 1),
        }
        if candidates.len() >= enough && candidates.iter().any(|found| found.violations == 0) {
            break;
        }
    }
    let none = || Futile { why: histogram(cache.node_count(), &counts), keeps_nomination: false };
    // Of equally good ones the first is taken.
    candidates.into_iter().min_by_key(Preemption::cost).ok_or_else(none)
}

impl Preemption {
    /// Fewer broken budgets, then a less important first victim, then a smaller sum of priorities, then fewer victims,
    /// then younger ones of the highest priority.
    fn cost(&self) -> (usize, Option<i32>, i64, usize, Reverse<Timestamp>) {
        let highest = self.victims.first().map(|victim| victim.priority);
        // Priorities may be negative: each counts as above the lowest, so that more victims never cost less.
        let sum = self.victims.iter().map(|victim| i64::from(victim.priority) + i64::from(i32::MAX) + 1).sum();
        let oldest = self.victims.iter().filter(|victim| Some(victim.priority) == highest).map(started).min();
        (self.violations, highest, sum, self.victims.len(), Reverse(oldest.unwrap_or(Timestamp::MAX)))
    }
}

/// The least important pods whose absence makes the pod fit, or why it does not fit even without all less important ones.
fn victims_on(cache: &Cache, pod: &PodInfo, facts: &NodeFacts, node: &NodeInfo) -> Result<Preemption, Vec<String>> {
    let mut lesser: Vec<Arc<PodInfo>> =
        node.pods.values().filter(|other| other.priority < pod.priority).cloned().collect();
    if lesser.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".to_owned()]);
    }
    lesser.sort_by_key(importance);
    let mut left = node.clone();
    for other in &lesser {
        left.remove(&other.uid);
    }
    fits_with(cache, pod, facts, &left)
        .map_err(|reasons| reasons.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let mut victims = Vec::new();
    let mut spared = |pods: Vec<Arc<PodInfo>>| {
        let before = victims.len();
        for other in pods {
            left.add(other.clone());
            if fits_with(cache, pod, facts, &left).is_err() {
                left.remove(&other.uid);
                victims.push(other);
            }
        }
        victims.len() - before
    };
    let (protected, others) = cache.budgets().split(lesser);
    let violations = spared(protected);
    spared(others);
    victims.sort_by_key(importance);
    Ok(Preemption { node: facts.name.clone(), victims, violations })
}

fn fits_with(cache: &Cache, pod: &PodInfo, facts: &NodeFacts, node: &NodeInfo) -> Result<(), Vec<Reason>> {
    fits(cache, pod, &Prepared::new(pod, View::with(cache, facts, node)), (facts, node))
}

/// Sorts the most important first: by priority, then by age.
fn importance(pod: &Arc<PodInfo>) -> (Reverse<i32>, Timestamp, String) {
    (Reverse(pod.priority), started(pod), pod.uid.clone())
}

/// A pod that has not started is the youngest.
fn started(pod: &Arc<PodInfo>) -> Timestamp {
    pod.started.unwrap_or(Timestamp::MAX)
}
