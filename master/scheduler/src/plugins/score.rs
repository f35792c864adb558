//! Weighs the plugins' opinions on the nodes that can take a pod.

use crate::cache::Cache;
use crate::node::{NodeFacts, NodeInfo};
use crate::plugins::{inter_pod_affinity, node_affinity, node_resources, taint_toleration, topology_spread};
use crate::pod::PodInfo;

/// The best score of a plugin.
const MAX: i64 = 100;
/// Weights of kube-scheduler's default profile.
const TAINT_TOLERATION: i64 = 3;
const NODE_AFFINITY: i64 = 2;
const INTER_POD_AFFINITY: i64 = 2;
const TOPOLOGY_SPREAD: i64 = 2;
/// ImageLocality counts images between these sizes.
const SMALL_IMAGE: i64 = 23 * 1024 * 1024;
const LARGE_IMAGE: i64 = 1000 * 1024 * 1024;
/// How much one more pod of the application on the same node weighs against one in the same zone, without constraints
/// of the pod's own: kube-scheduler's default constraints are maxSkew 3 by hostname and 5 by zone.
const SAME_NODE: i64 = 5;
const SAME_ZONE: i64 = 3;

/// A node that can take the pod.
pub type Candidate<'a> = (&'a NodeFacts, &'a NodeInfo);

/// The candidates' total scores, in their order.
#[must_use]
pub fn totals(pod: &PodInfo, cache: &Cache, candidates: &[Candidate<'_>]) -> Vec<i64> {
    let mut totals: Vec<i64> = candidates
        .iter()
        .map(|(facts, node)| {
            node_resources::least_allocated(pod, facts, node) + node_resources::balanced(pod, facts, node)
        })
        .collect();
    for (total, score) in totals.iter_mut().zip(image_locality(pod, candidates)) {
        *total += score;
    }
    let mut add = |scores: Vec<i64>, weight: i64, reverse: bool| {
        for (total, score) in totals.iter_mut().zip(normalised(scores, reverse)) {
            *total += score * weight;
        }
    };
    add(each(candidates, |facts, _| taint_toleration::avoided(pod, facts)), TAINT_TOLERATION, true);
    if pod.wishes.as_ref().is_some_and(|wishes| !wishes.preferred_nodes.is_empty()) {
        add(each(candidates, |facts, _| node_affinity::preference(pod, facts)), NODE_AFFINITY, false);
    }
    let liked = inter_pod_affinity::preferences(pod, cache);
    if !liked.is_empty() {
        let likes = each(candidates, |facts, _| {
            let of_node = liked.iter().filter(|((key, value), _)| facts.labels.get(key) == Some(value));
            of_node.map(|(_, weight)| weight).sum()
        });
        let least = likes.iter().copied().min().unwrap_or(0);
        add(likes.into_iter().map(|like| like - least).collect(), INTER_POD_AFFINITY, false);
    }
    for (total, score) in totals.iter_mut().zip(spread_scores(spread_costs(pod, cache, candidates))) {
        *total += score * TOPOLOGY_SPREAD;
    }
    totals
}

fn each(candidates: &[Candidate<'_>], score: impl Fn(&NodeFacts, &NodeInfo) -> i64) -> Vec<i64> {
    candidates.iter().map(|(facts, node)| score(facts, node)).collect()
}

/// What a pod more costs on each candidate; none where it has no domain.
fn spread_costs(pod: &PodInfo, cache: &Cache, candidates: &[Candidate<'_>]) -> Vec<Option<i64>> {
    if let Some(counts) = topology_spread::soft_counts(pod, cache) {
        return candidates.iter().map(|(facts, _)| counts.cost(facts)).collect();
    }
    if pod.wishes.as_ref().is_some_and(|wishes| !wishes.spread.is_empty()) || pod.labels.is_empty() {
        return vec![Some(0); candidates.len()];
    }
    let cost = |(facts, node): &Candidate<'_>| {
        let here = i64::from(node.applications.get(&pod.application).copied().unwrap_or(0));
        let zone = facts.zone().map_or(0, |zone| i64::from(cache.application_in_zone(pod.application, zone)));
        Some(here * SAME_NODE + zone * SAME_ZONE)
    };
    candidates.iter().map(cost).collect()
}

/// The cheapest is 100 where nothing is there yet, and a node without a domain 0, as upstream has it.
fn spread_scores(costs: Vec<Option<i64>>) -> Vec<i64> {
    let known = || costs.iter().copied().flatten();
    let (least, most) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
    let score = |cost: &Option<i64>| match cost {
        None => 0,
        Some(_) if most == 0 => MAX,
        Some(cost) => MAX * (most + least - cost) / most,
    };
    costs.iter().map(score).collect()
}

/// Scales so that the largest is 100; reversed, the largest is 0 and nothing is 100.
fn normalised(scores: Vec<i64>, reverse: bool) -> Vec<i64> {
    let largest = scores.iter().copied().max().unwrap_or(0);
    let scaled = scores.into_iter().map(|score| {
        let share = if largest <= 0 { 0 } else { score * MAX / largest };
        if reverse { MAX - share } else { share }
    });
    scaled.collect()
}

/// ImageLocality: how much of the pod's images a node has. An image counts the more the more nodes have it, so that one
/// node alone does not draw all pods of its image.
fn image_locality(pod: &PodInfo, candidates: &[Candidate<'_>]) -> Vec<i64> {
    let nodes = i64::try_from(candidates.len()).unwrap_or(1).max(1);
    let mut present = vec![0; candidates.len()];
    for image in &pod.images {
        let image = with_tag(image);
        let sizes = each(candidates, |facts, _| facts.images.get(&image).copied().unwrap_or(0));
        let holders = i64::try_from(sizes.iter().filter(|size| **size > 0).count()).unwrap_or(0);
        present.iter_mut().zip(sizes).for_each(|(sum, size)| *sum += size.saturating_mul(holders) / nodes);
    }
    let (least, most) = (SMALL_IMAGE, LARGE_IMAGE * pod.containers.max(1));
    present.into_iter().map(|sum| MAX * (sum.clamp(least, most) - least) / (most - least)).collect()
}

fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || image.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}
