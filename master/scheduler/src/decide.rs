//! Which node a pod goes to. Pure.

use std::collections::BTreeMap;

use crate::cache::Cache;
use crate::node::NodeFacts;
use crate::plugins::{Prepared, Reason, score};
use crate::pod::PodInfo;
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// How many nodes exist.
    pub nodes: usize,
    /// How many nodes gave each reason.
    pub reasons: BTreeMap<Reason, usize>,
    /// How many nodes could not be made to fit by removing pods.
    pub unresolvable: usize,
    /// Whether some running pod has a lower priority, so that preemption might have found room.
    pub preemption_might_help: bool,
}

impl Unfit {
    /// The text of the condition and the event, as kube-scheduler words it.
    #[must_use]
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let told = |(reason, count): (&Reason, &usize)| match reason {
            // It is no matter of nodes.
            Reason::Claim(why) => why.clone(),
            reason => format!("{count} {reason}"),
        };
        let mut reasons: Vec<String> = self.reasons.iter().map(told).collect();
        reasons.sort();
        let mut message = format!("0/{} nodes are available: {}.", self.nodes, reasons.join(", "));
        if !self.preemption_might_help {
            let victims = self.nodes.saturating_sub(self.unresolvable);
            let parts = [
                (self.unresolvable, "Preemption is not helpful for scheduling"),
                (victims, "No preemption victims found for incoming pod"),
            ];
            let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, text)| format!("{count} {text}"));
            let mut parts: Vec<String> = parts.collect();
            parts.sort();
            message.push_str(&format!(" preemption: 0/{} nodes are available: {}.", self.nodes, parts.join(", ")));
        }
        message
    }
}

/// Finds the best node for the pod, searching from position `start` on.
///
/// # Errors
/// [`Unfit`] with the reasons of all nodes when none can take it.
pub fn decide(cache: &Cache, pod: &PodInfo, start: usize) -> Result<Decision, Unfit> {
    let prepared = Prepared::new(pod, cache);
    let wanted = nodes_to_find(cache.node_count());
    let mut candidates = Vec::with_capacity(wanted.min(cache.node_count()));
    let mut unfit =
        Unfit { nodes: cache.node_count(), reasons: BTreeMap::new(), unresolvable: 0, preemption_might_help: false };
    let mut looked_at = 0;
    for (facts, node) in cache.nodes_from(start) {
        looked_at += 1;
        match prepared.filter(facts, node) {
            Ok(()) => candidates.push((facts, node)),
            Err(reasons) => {
                unfit.unresolvable += usize::from(reasons.iter().any(Reason::is_unresolvable));
                for reason in reasons {
                    *unfit.reasons.entry(reason).or_default() += 1;
                }
            }
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
        Some((_, facts)) => Ok(Decision { node: facts.name.clone(), looked_at, volumes: prepared.choose(facts) }),
        None => {
            unfit.preemption_might_help = unfit.unresolvable < unfit.nodes && cache.has_pod_below(pod.priority);
            Err(unfit)
        }
    }
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
