//! Which node a pod goes to. Pure.

use std::collections::BTreeMap;

use crate::cache::Cache;
use crate::node::{NodeFacts, NodeInfo};
use crate::plugins::{Prepared, Reason, score};
use crate::pod::PodInfo;
use crate::preemption::{self, Futile, Preemption};
use crate::view::View;
use crate::volumes::Choice;

/// Below this many nodes all are looked at.
const LEAST_TO_FIND: usize = 100;
/// Of very many nodes at least this share is looked at, in percent.
const LEAST_SHARE: usize = 5;

/// A node was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Its name.
    pub node: String,
    /// How many nodes were looked at; the next search starts behind them.
    pub looked_at: usize,
    /// What claims that wait for the pod get there.
    pub volumes: Vec<Choice>,
}

/// No node can take the pod.
#[derive(Debug, Clone)]
pub struct Unfit {
    /// How many nodes exist.
    pub nodes: usize,
    /// How many nodes gave each reason.
    pub reasons: BTreeMap<Reason, usize>,
    /// Room that can be made for it, or why none is.
    pub preemption: Result<Preemption, Futile>,
}

impl Unfit {
    /// The text of the condition and the event, as kube-scheduler words it.
    #[must_use]
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let is_claim = |(reason, _): &(&Reason, &usize)| matches!(reason, Reason::Claim(_));
        let mut message = match self.reasons.iter().find(is_claim) {
            // It is no matter of nodes.
            Some((why, _)) => format!("0/{} nodes are available: {why}.", self.nodes),
            None => {
                let mut counts: BTreeMap<String, usize> = BTreeMap::new();
                for (reason, count) in &self.reasons {
                    *counts.entry(reason.to_string()).or_default() += count;
                }
                histogram(self.nodes, &counts)
            }
        };
        if let Err(futile) = &self.preemption {
            message.push_str(&format!(" preemption: {}", futile.why));
        }
        message
    }
}

/// How many of the nodes gave which reason, in kube-scheduler's words.
pub(crate) fn histogram(nodes: usize, counts: &BTreeMap<String, usize>) -> String {
    let mut reasons: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.sort();
    format!("0/{nodes} nodes are available: {}.", reasons.join(", "))
}

/// Finds the best node for the pod, searching from position `start` on. A node that the pod is nominated to comes first.
///
/// # Errors
/// [`Unfit`] with the reasons of all nodes when none can take it.
pub fn decide(cache: &Cache, pod: &PodInfo, start: usize) -> Result<Decision, Unfit> {
    let prepared = Prepared::new(pod, cache.into());
    let decided = |facts: &NodeFacts, looked_at: usize| {
        Ok(Decision { node: facts.name.clone(), looked_at, volumes: prepared.choose(facts) })
    };
    if let Some((facts, node)) = cache.nominated().node_of(&pod.uid).and_then(|name| cache.node(name))
        && fits(cache, pod, &prepared, (facts, node)).is_ok()
    {
        return decided(facts, 0);
    }
    let wanted = nodes_to_find(cache.node_count());
    let mut candidates = Vec::with_capacity(wanted.min(cache.node_count()));
    let mut reasons: BTreeMap<Reason, usize> = BTreeMap::new();
    let mut looked_at = 0;
    for (facts, node) in cache.nodes_from(start) {
        looked_at += 1;
        match fits(cache, pod, &prepared, (facts, node)) {
            Ok(()) => candidates.push((facts, node)),
            Err(refused) => refused.into_iter().for_each(|reason| *reasons.entry(reason).or_default() += 1),
        }
        if candidates.len() >= wanted {
            break;
        }
    }
    let scores = score::totals(pod, cache, &candidates);
    // Equal scores: the one found first. The start of the search moves on with each pod, so that this is fair.
    let mut best: Option<(i64, &NodeFacts)> = None;
    for ((facts, _), score) in candidates.iter().zip(scores) {
        if best.is_none_or(|(most, _)| score > most) {
            best = Some((score, facts));
        }
    }
    match best {
        Some((_, facts)) => decided(facts, looked_at),
        None => Err(Unfit { nodes: cache.node_count(), reasons, preemption: preemption::find(cache, pod, start) }),
    }
}

/// Whether a node can take the pod, also when those come first that room is kept for there.
pub(crate) fn fits(
    cache: &Cache,
    pod: &PodInfo,
    prepared: &Prepared<'_>,
    (facts, node): (&NodeFacts, &NodeInfo),
) -> Result<(), Vec<Reason>> {
    prepared.filter(facts, node)?;
    let mut first = cache.nominated().before(pod, &facts.name).peekable();
    if first.peek().is_none() {
        return Ok(());
    }
    let mut crowded = node.clone();
    first.for_each(|other| crowded.add(other.clone()));
    Prepared::new(pod, View::with(cache, facts, &crowded)).filter(facts, &crowded)
}

/// After how many fitting nodes the search stops (kube-scheduler's percentageOfNodesToScore, adaptive by default).
#[must_use]
pub fn nodes_to_find(nodes: usize) -> usize {
    if nodes < LEAST_TO_FIND {
        return nodes.max(1);
    }
    let share = 50usize.saturating_sub(nodes / 125).max(LEAST_SHARE);
    (nodes * share / 100).max(LEAST_TO_FIND)
}
